//! The bytes of a VARIANT in Arrow, which are those of Parquet:
//! <https://github.com/apache/parquet-format/blob/master/VariantEncoding.md>.
//!
//! DuckDB checks what it reads of them, but neither how deep they nest nor whether two parts of one share their bytes: a
//! few of them could stand for more than any stack or memory holds.

/// How deep values may nest.
const DEPTH_MAX: usize = 100;

/// Whether a value is one: a tree whose nodes have bytes of their own. What is in its leaves, DuckDB checks.
pub fn is_value(bytes: &[u8]) -> bool {
    // Every node has at least one byte.
    let mut nodes_left = bytes.len();
    visit(bytes, 0, &mut nodes_left).is_some()
}

fn visit(bytes: &[u8], depth: usize, nodes_left: &mut usize) -> Option<()> {
    *nodes_left = nodes_left.checked_sub(1)?;
    let (header, rest) = bytes.split_first()?;
    let about = usize::from(header >> 2);
    let (offset_bytes, id_bytes, is_large) = match header & 0b11 {
        // An object has the ids of its fields' names in front.
        2 => ((about & 0b11) + 1, (about >> 2 & 0b11) + 1, about >> 4 & 1 == 1),
        3 => ((about & 0b11) + 1, 0, about >> 2 & 1 == 1),
        _ => return Some(()),
    };
    if depth == DEPTH_MAX {
        return None;
    }
    let count_bytes = if is_large { 4 } else { 1 };
    let count = number(rest.get(..count_bytes)?);
    let offsets = rest.get(count_bytes.checked_add(count.checked_mul(id_bytes)?)?..)?;
    let children = offsets.get(count.checked_add(1)?.checked_mul(offset_bytes)?..)?;
    for offset in offsets.chunks_exact(offset_bytes).take(count) {
        visit(children.get(number(offset)..)?, depth + 1, nodes_left)?;
    }
    Some(())
}

/// Little-endian, of at most four bytes.
fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = is_value(&bytes);
        }
    }

    /// An array of one element.
    fn nested(depth: usize) -> Vec<u8> {
        let mut value = vec![0];
        for _ in 0..depth {
            let length = u32::try_from(value.len()).unwrap().to_le_bytes();
            let head = [&[0b1111, 1, 0, 0, 0, 0][..], &length].concat();
            value = [head, value].concat();
        }
        value
    }

    #[test]
    fn trees_are_values_and_towers_are_not() {
        assert!(is_value(&[0]));
        assert!(is_value(&nested(DEPTH_MAX)));
        assert!(!is_value(&nested(DEPTH_MAX + 1)));
        assert!(!is_value(&[]));
        for length in 1..nested(3).len() {
            assert!(!is_value(&nested(3)[..length]));
        }
    }

    #[test]
    fn shared_children_are_refused() {
        // Three elements, all of them at the same place.
        assert!(is_value(&[0b11, 3, 0, 1, 2, 3, 0, 0, 0]));
        let mut laughs = vec![0];
        for _ in 0..20 {
            let mut value = vec![0b11, 200];
            value.extend([0; 201]);
            value.extend(laughs);
            laughs = value;
        }
        assert!(!is_value(&laughs));
    }
}
