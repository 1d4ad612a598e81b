//! Large buffers on their way to clients, found again by where they are.
//!
//! HTTP/2 hands a connection borrowed slices, 16 KiB at a time to a client that takes no larger frames. What is to be held until
//! more has come would have to be copied; but most slices are parts of buffers that [`share`] has seen, and can be shared.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// What is shorter is copied as fast as it is found.
const BYTES_MIN: usize = 4 * 1024;

/// By their first byte's address. What is in here is not freed, so an address belongs to one buffer only.
static BUFFERS: Mutex<BTreeMap<usize, Bytes>> = Mutex::new(BTreeMap::new());

/// A buffer that [`find`] knows until it is dropped.
struct Shared(Bytes);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Its last reference may be this one: freed after the lock.
        let _removed = buffers().remove(&address(&self.0));
    }
}

/// The same bytes, whose parts can be found as long as somebody has them, unless they are few.
pub fn share(bytes: Bytes) -> Bytes {
    if bytes.len() < BYTES_MIN {
        return bytes;
    }
    let _replaced = buffers().insert(address(&bytes), bytes.clone());
    Bytes::from_owner(Shared(bytes))
}

/// A reference to what `part` borrows, if it is in a buffer that is shared. Of buffers that overlap one may do for all: then
/// there is none for some parts.
pub fn find(part: &[u8]) -> Option<Bytes> {
    if part.len() < BYTES_MIN {
        return None;
    }
    let begin = address(part);
    let buffers = buffers();
    let (first, buffer) = buffers.range(..=begin).next_back()?;
    let from = begin - first;
    let to = from.checked_add(part.len())?;
    (to <= buffer.len()).then(|| buffer.slice(from..to))
}

/// Each change of it is one call: a panic leaves nothing half done.
fn buffers() -> MutexGuard<'static, BTreeMap<usize, Bytes>> {
    BUFFERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address(bytes: &[u8]) -> usize {
    bytes.as_ptr().addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_what_is_shared_are_found() {
        let shared = share(Bytes::from(vec![7; 100_000]));
        let part = &shared[100..50_100];
        let found = find(part).unwrap();
        assert_eq!((found.as_ptr(), found.len()), (part.as_ptr(), 50_000));
        assert!(find(&[7; 50_000]).is_none());
        let (begin, kept) = (address(&shared), found.clone());
        drop(shared);
        assert!(find(&kept).is_none(), "nobody sends it any more");
        assert_eq!(*kept, [7; 50_000]);
        assert!(!buffers().contains_key(&begin));
    }

    #[test]
    fn what_is_shared_twice_can_be_dropped_twice() {
        let bytes = Bytes::from(vec![8; 100_000]);
        let (one, other) = (share(bytes.clone()), share(bytes.slice(..50_000)));
        assert_eq!(find(&one[..50_000]).unwrap(), other);
        // Not in the one that has taken its place.
        assert!(find(&one).is_none());
        drop(one);
        drop(other);
        assert!(find(&bytes[10..20_000]).is_none());
    }
}
