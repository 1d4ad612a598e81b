//! DuckDB's exact types in Arrow.
//!
//! Lossless exports of DuckDB put types that Arrow lacks into storage of a fixed layout, told by the field's extension
//! name. Here is which ones there are, what a plain Arrow column of the same values looks like, and which bytes are
//! values at all: DuckDB 2.0.0 does not check those that it imports, and some of them would invalidate the database.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, StringArray,
    make_array,
};
use arrow::datatypes::{DataType, Field, Int8Type};
use duckherder_proto::{ExceptionType, RemoteError};

use crate::variant;

/// Keys of the extension in a field's metadata: <https://arrow.apache.org/docs/format/Columnar.html#extension-types>
const EXTENSION_NAME: &str = "ARROW:extension:name";
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";

/// Digits of Arrow's largest 128-bit decimal.
const DECIMAL_DIGITS: u8 = 38;

/// Bytes of the magnitude of a BIGNUM that is written out as text: the work grows with their square.
const BIGNUM_TEXT_BYTES_MAX: usize = 4096;

/// UTC offsets of TIME WITH TIME ZONE are within this many seconds (DuckDB 2.0.0, `dtime_tz_t::MAX_OFFSET`).
const OFFSET_SECONDS_MAX: i64 = 16 * 60 * 60 - 1;

/// Microseconds of a day.
const DAY_US: u64 = 24 * 60 * 60 * 1_000_000;

/// A type that Arrow has no plain type for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exact {
    /// BOOLEAN, a byte each.
    Boolean,
    /// HUGEINT: 16 bytes, little-endian.
    Hugeint,
    /// UHUGEINT: 16 bytes, little-endian.
    Uhugeint,
    /// TIME WITH TIME ZONE: 8 bytes.
    TimeTz,
    /// UUID: 16 bytes, big-endian.
    Uuid,
    /// JSON: text.
    Json,
    /// BIT: the number of padding bits, then the bits, padding first.
    Bit,
    /// BIGNUM: three bytes of sign and length, then the magnitude, big-endian; all inverted if negative.
    Bignum,
    /// VARIANT: a struct of two binaries.
    Variant,
}

impl Exact {
    /// What a field's extension says it is.
    pub fn of(field: &Field) -> Option<Self> {
        let metadata = field.metadata();
        match metadata.get(EXTENSION_NAME).map(String::as_str)? {
            "arrow.bool8" => Some(Self::Boolean),
            "arrow.uuid" => Some(Self::Uuid),
            "arrow.json" => Some(Self::Json),
            "arrow.parquet.variant" => Some(Self::Variant),
            "arrow.opaque" => {
                let opaque: serde_json::Value = serde_json::from_str(metadata.get(EXTENSION_METADATA)?).ok()?;
                if opaque.get("vendor_name")?.as_str()? != "DuckDB" {
                    return None;
                }
                match opaque.get("type_name")?.as_str()? {
                    "hugeint" => Some(Self::Hugeint),
                    "uhugeint" => Some(Self::Uhugeint),
                    "time_tz" => Some(Self::TimeTz),
                    "bit" => Some(Self::Bit),
                    "bignum" => Some(Self::Bignum),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// DuckDB's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::Hugeint => "HUGEINT",
            Self::Uhugeint => "UHUGEINT",
            Self::TimeTz => "TIME WITH TIME ZONE",
            Self::Uuid => "UUID",
            Self::Json => "JSON",
            Self::Bit => "BIT",
            Self::Bignum => "BIGNUM",
            Self::Variant => "VARIANT",
        }
    }

    /// The plain Arrow type of the same values; `None` if there is none.
    pub fn plain_type(self) -> Option<DataType> {
        Some(match self {
            Self::Boolean => DataType::Boolean,
            Self::Hugeint | Self::Uhugeint => DataType::Decimal128(DECIMAL_DIGITS, 0),
            Self::TimeTz | Self::Uuid | Self::Json | Self::Bit | Self::Bignum => DataType::Utf8,
            Self::Variant => return None,
        })
    }

    /// The same values in the [plain type](Exact::plain_type).
    ///
    /// # Errors
    /// What is wrong with the first value that has no place there.
    pub fn to_plain(self, data: ArrayData) -> Result<ArrayData, String> {
        let array = make_array(data);
        let plain: ArrayRef = match self {
            Self::Boolean => {
                let bytes = array.as_primitive_opt::<Int8Type>().ok_or_else(unexpected)?;
                Arc::new(
                    bytes
                        .iter()
                        .map(|value| value.map(|value| value != 0))
                        .collect::<BooleanArray>(),
                )
            }
            Self::Hugeint => Arc::new(decimals(fixed(&array)?, |bytes| Some(i128::from_le_bytes(bytes)))?),
            Self::Uhugeint => Arc::new(decimals(fixed(&array)?, |bytes| {
                i128::try_from(u128::from_le_bytes(bytes)).ok()
            })?),
            Self::TimeTz => Arc::new(texts(fixed(&array)?.iter(), |bytes| {
                bytes
                    .try_into()
                    .map(|bytes| time_tz_text(u64::from_le_bytes(bytes)))
                    .map_err(|_| unexpected())
            })?),
            Self::Uuid => Arc::new(texts(fixed(&array)?.iter(), |bytes| {
                uuid::Uuid::from_slice(bytes)
                    .map(|uuid| uuid.to_string())
                    .map_err(|_| unexpected())
            })?),
            Self::Bit => Arc::new(texts(binary(&array)?.iter(), |bytes| {
                bit_text(bytes).ok_or_else(unexpected)
            })?),
            Self::Bignum => Arc::new(texts(binary(&array)?.iter(), bignum_text)?),
            Self::Json | Self::Variant => return Ok(array.to_data()),
        };
        Ok(plain.to_data())
    }

    /// Whether a column of this type holds values only.
    ///
    /// # Errors
    /// What is wrong with the first that is none.
    pub fn check(self, array: &ArrayRef) -> Result<(), String> {
        let malformed = |what: &str| Err(format!("a malformed {}: {what}", self.name()));
        match self {
            Self::Hugeint | Self::Uhugeint | Self::Uuid if fixed(array)?.value_length() != 16 => {
                malformed("it does not have 16 bytes")
            }
            Self::TimeTz => {
                for bytes in fixed(array)?.iter().flatten() {
                    let Ok(bytes) = <[u8; 8]>::try_from(bytes) else {
                        return malformed("it does not have 8 bytes");
                    };
                    let bits = u64::from_le_bytes(bytes);
                    let offset = OFFSET_SECONDS_MAX - (bits & 0xFF_FFFF).cast_signed();
                    if bits >> 24 > DAY_US || offset < -OFFSET_SECONDS_MAX {
                        return malformed("it is no time of day");
                    }
                }
                Ok(())
            }
            Self::Json => {
                for text in strings(array)?.into_iter().flatten() {
                    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
                        return malformed(&error.to_string());
                    }
                }
                Ok(())
            }
            Self::Bit => match binaries(array)?.into_iter().flatten().all(is_bit) {
                true => Ok(()),
                false => malformed("its padding is not as its first byte says"),
            },
            Self::Bignum => match binaries(array)?
                .into_iter()
                .flatten()
                .all(|bytes| bignum(bytes).is_some())
            {
                true => Ok(()),
                false => malformed("its length is not as its header says"),
            },
            Self::Variant => {
                let parts = array.as_struct_opt().ok_or_else(unexpected)?;
                let values = parts.column_by_name("value").ok_or_else(unexpected)?;
                match binaries(values)?.into_iter().flatten().all(variant::is_value) {
                    true => Ok(()),
                    false => malformed("it is no tree, or one too deep"),
                }
            }
            Self::Boolean | Self::Hugeint | Self::Uhugeint | Self::Uuid => Ok(()),
        }
    }
}

/// `message` for clients, about a column.
pub fn column_error(kind: ExceptionType, column: &str, message: &str) -> RemoteError {
    RemoteError::new(kind, format!("column \"{column}\": {message}"))
}

fn unexpected() -> String {
    "its storage is not what its extension type says".to_owned()
}

fn fixed(array: &ArrayRef) -> Result<&FixedSizeBinaryArray, String> {
    array.as_fixed_size_binary_opt().ok_or_else(unexpected)
}

fn binary(array: &ArrayRef) -> Result<&BinaryArray, String> {
    array.as_binary_opt::<i32>().ok_or_else(unexpected)
}

/// Binary values of any offset width.
fn binaries(array: &ArrayRef) -> Result<Vec<Option<&[u8]>>, String> {
    match array.data_type() {
        DataType::Binary => Ok(array.as_binary::<i32>().iter().collect()),
        DataType::LargeBinary => Ok(array.as_binary::<i64>().iter().collect()),
        DataType::BinaryView => Ok(array.as_binary_view().iter().collect()),
        _ => Err(unexpected()),
    }
}

fn strings(array: &ArrayRef) -> Result<Vec<Option<&str>>, String> {
    match array.data_type() {
        DataType::Utf8 => Ok(array.as_string::<i32>().iter().collect()),
        DataType::LargeUtf8 => Ok(array.as_string::<i64>().iter().collect()),
        DataType::Utf8View => Ok(array.as_string_view().iter().collect()),
        _ => Err(unexpected()),
    }
}

fn decimals(array: &FixedSizeBinaryArray, read: impl Fn([u8; 16]) -> Option<i128>) -> Result<Decimal128Array, String> {
    let limit = 10_i128.pow(u32::from(DECIMAL_DIGITS));
    let values = array
        .iter()
        .map(|bytes| {
            let Some(bytes) = bytes else { return Ok(None) };
            let bytes = bytes.try_into().map_err(|_| unexpected())?;
            match read(bytes).filter(|value| (-limit < *value) && (*value < limit)) {
                Some(value) => Ok(Some(value)),
                None => Err(format!("a value has more than {DECIMAL_DIGITS} digits")),
            }
        })
        .collect::<Result<Vec<_>, String>>()?;
    Decimal128Array::from(values)
        .with_precision_and_scale(DECIMAL_DIGITS, 0)
        .map_err(|error| error.to_string())
}

fn texts<'a>(
    values: impl Iterator<Item = Option<&'a [u8]>>,
    text: impl Fn(&'a [u8]) -> Result<String, String>,
) -> Result<StringArray, String> {
    values.map(|value| value.map(&text).transpose()).collect()
}

/// As DuckDB writes it: `12:30:00.5+02`.
fn time_tz_text(bits: u64) -> String {
    let us = bits >> 24;
    let offset = OFFSET_SECONDS_MAX - (bits & 0xFF_FFFF).cast_signed();
    let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        let _ = write!(text, ".{}", digits.trim_end_matches('0'));
    }
    let sign = if offset < 0 { '-' } else { '+' };
    let offset = offset.unsigned_abs();
    let _ = write!(text, "{sign}{:02}", offset / 3600);
    if !offset.is_multiple_of(3600) {
        let _ = write!(text, ":{:02}", offset / 60 % 60);
    }
    if !offset.is_multiple_of(60) {
        let _ = write!(text, ":{:02}", offset % 60);
    }
    text
}

fn is_bit(bytes: &[u8]) -> bool {
    match bytes {
        // An empty bit string is its first byte alone.
        [0] => true,
        [padding @ 0..=7, first, ..] => {
            let mask = 0xFF_u8.checked_shl(8 - u32::from(*padding)).unwrap_or(0);
            first & mask == mask
        }
        _ => false,
    }
}

fn bit_text(bytes: &[u8]) -> Option<String> {
    let (padding, bits) = bytes.split_first()?;
    let all = bits
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
    Some(
        all.skip(usize::from(*padding))
            .map(|bit| if bit { '1' } else { '0' })
            .collect(),
    )
}

/// Whether it is negative, and its magnitude, inverted if so.
fn bignum(bytes: &[u8]) -> Option<(bool, &[u8])> {
    let ([first, second, third], magnitude) = bytes.split_first_chunk::<3>()?;
    let mut header = u32::from_be_bytes([0, *first, *second, *third]);
    let negative = header & 0x80_0000 == 0;
    if negative {
        header = !header & 0xFF_FFFF;
    }
    let length = (header & 0x7F_FFFF) as usize;
    (length == magnitude.len() && length > 0).then_some((negative, magnitude))
}

fn bignum_text(bytes: &[u8]) -> Result<String, String> {
    let (negative, magnitude) = bignum(bytes).ok_or_else(unexpected)?;
    if magnitude.len() > BIGNUM_TEXT_BYTES_MAX {
        return Err(format!("a value has more than {BIGNUM_TEXT_BYTES_MAX} bytes"));
    }
    const CHUNK: u64 = 1_000_000_000;
    // Base 10^9, least significant first.
    let mut digits: Vec<u64> = vec![0];
    for byte in magnitude {
        let mut carry = u64::from(if negative { !byte } else { *byte });
        for digit in &mut digits {
            let value = *digit * 256 + carry;
            *digit = value % CHUNK;
            carry = value / CHUNK;
        }
        if carry > 0 {
            digits.push(carry);
        }
    }
    let mut text = String::new();
    let mut rest = digits.iter().rev();
    if let Some(first) = rest.next() {
        let sign = if negative { "-" } else { "" };
        let _ = write!(text, "{sign}{first}");
    }
    for digit in rest {
        let _ = write!(text, "{digit:09}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(type_name: &str, data_type: DataType) -> Field {
        let metadata = [
            (EXTENSION_NAME, "arrow.opaque".to_owned()),
            (
                EXTENSION_METADATA,
                format!("{{\"type_name\": \"{type_name}\", \"vendor_name\": \"DuckDB\"}}"),
            ),
        ];
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value));
        Field::new("f", data_type, true).with_metadata(metadata.collect::<std::collections::HashMap<_, _>>())
    }

    #[test]
    fn extensions_are_told_apart() {
        assert_eq!(Exact::of(&field("bit", DataType::Binary)), Some(Exact::Bit));
        assert_eq!(Exact::of(&field("of somebody else", DataType::Binary)), None);
        assert_eq!(Exact::of(&Field::new("f", DataType::Binary, true)), None);
        let metadata = [(EXTENSION_NAME.to_owned(), "arrow.opaque".to_owned())];
        let without = Field::new("f", DataType::Binary, true)
            .with_metadata(metadata.into_iter().collect::<std::collections::HashMap<_, _>>());
        assert_eq!(Exact::of(&without), None);
    }

    #[test]
    fn storage_that_is_not_the_types_is_an_error() {
        let numbers: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1]));
        for exact in [
            Exact::Boolean,
            Exact::Hugeint,
            Exact::Uhugeint,
            Exact::TimeTz,
            Exact::Uuid,
            Exact::Bit,
            Exact::Bignum,
        ] {
            assert!(exact.to_plain(numbers.to_data()).is_err(), "{exact:?}");
        }
        for exact in [Exact::TimeTz, Exact::Json, Exact::Bit, Exact::Bignum, Exact::Variant] {
            assert!(exact.check(&numbers).is_err(), "{exact:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let array: ArrayRef = Arc::new(BinaryArray::from(vec![&bytes[..]]));
            for exact in [Exact::Bit, Exact::Bignum] {
                let checked = exact.check(&array);
                let plain = exact.to_plain(array.to_data());
                // What is a value has a text.
                prop_assert!(checked.is_err() || plain.is_ok());
            }
        }

        #[test]
        fn times_of_any_bits_have_a_text(bits: u64) {
            prop_assert!(!time_tz_text(bits).is_empty());
        }

        #[test]
        fn numbers_have_the_texts_of_their_values(number: u64, negative: bool) {
            let magnitude = number.to_be_bytes();
            let length = u32::try_from(magnitude.len()).unwrap();
            let mut bytes = [&(0x80_0000 | length).to_be_bytes()[1..], &magnitude].concat();
            if negative {
                bytes.iter_mut().for_each(|byte| *byte = !*byte);
            }
            let sign = if negative { "-" } else { "" };
            prop_assert_eq!(bignum_text(&bytes).unwrap(), format!("{sign}{number}"));
        }
    }
}
