//! The 512 bytes at the end of a DuckDB extension file, which tell DuckDB whether it may load it.
//!
//! Eight fields of 32 bytes, in reverse order and padded with zeros, then 256 bytes for a signature (zeros: unsigned).
//! DuckDB reads them in `ExtensionHelper::ParseExtensionMetaData` (`main/extension/extension_load.cpp`).

use anyhow::{Context, Result, bail};

/// The size of the footer in bytes: DuckDB's `ParsedExtensionMetaData::FOOTER_SIZE`.
pub const SIZE: usize = 512;

const FIELD_SIZE: usize = 32;
const FIELDS: usize = 8;

/// The first field of every extension, the version of the footer's format.
const MAGIC: &str = "4";

/// The extension uses DuckDB's C++ interface, which only that very DuckDB version has.
const ABI: &str = "CPP";

/// What an extension says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// DuckDB's name for the platform, such as `linux_amd64`.
    pub platform: String,
    /// The one DuckDB version that can load the extension, such as `v2.0.0`.
    pub duckdb_version: String,
    /// The extension's own version, such as `v0.1.0`.
    pub extension_version: String,
}

impl Footer {
    /// The bytes to append to the shared library. Fails if a value does not fit its field.
    pub fn encode(&self) -> Result<[u8; SIZE]> {
        let fields = [
            MAGIC,
            &self.platform,
            &self.duckdb_version,
            &self.extension_version,
            ABI,
        ];
        let mut bytes = [0; SIZE];
        for (index, value) in fields.into_iter().enumerate() {
            if value.is_empty() || value.len() > FIELD_SIZE {
                bail!("`{value}` does not fit a footer field of {FIELD_SIZE} bytes");
            }
            let start = (FIELDS - 1 - index) * FIELD_SIZE;
            bytes[start..start + value.len()].copy_from_slice(value.as_bytes());
        }
        Ok(bytes)
    }

    /// Reads the footer of a whole extension file, the way DuckDB does.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let start = file
            .len()
            .checked_sub(SIZE)
            .context("the file is too short to have a footer")?;
        let field = |index: usize| -> Result<String> {
            let from = start + (FIELDS - 1 - index) * FIELD_SIZE;
            let value = std::str::from_utf8(&file[from..from + FIELD_SIZE]);
            Ok(value
                .with_context(|| format!("footer field {index} is not text"))?
                .trim_end_matches('\0')
                .to_owned())
        };
        if field(0)? != MAGIC {
            bail!("the file has no footer");
        }
        let abi = field(4)?;
        if abi != ABI {
            bail!("the footer says ABI `{abi}` and not `{ABI}`");
        }
        Ok(Self {
            platform: field(1)?,
            duckdb_version: field(2)?,
            extension_version: field(3)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer() -> Footer {
        Footer {
            platform: "linux_amd64".to_owned(),
            duckdb_version: "v2.0.0".to_owned(),
            extension_version: "v0.1.0".to_owned(),
        }
    }

    #[test]
    fn fields_are_where_duckdb_reads_them() {
        let bytes = footer().encode().unwrap();
        let field = |slot: usize| String::from_utf8(bytes[slot * 32..(slot + 1) * 32].to_vec()).unwrap();
        assert_eq!(field(7).trim_end_matches('\0'), "4");
        assert_eq!(field(6).trim_end_matches('\0'), "linux_amd64");
        assert_eq!(field(5).trim_end_matches('\0'), "v2.0.0");
        assert_eq!(field(4).trim_end_matches('\0'), "v0.1.0");
        assert_eq!(field(3).trim_end_matches('\0'), "CPP");
        assert!(bytes[..3 * 32].iter().chain(&bytes[256..]).all(|byte| *byte == 0));
    }

    #[test]
    fn what_was_written_reads_back() {
        let mut file = b"the library".to_vec();
        file.extend(footer().encode().unwrap());
        assert_eq!(Footer::parse(&file).unwrap(), footer());
    }

    #[test]
    fn a_full_field_reads_back() {
        let long = Footer {
            extension_version: "v".repeat(32),
            ..footer()
        };
        assert_eq!(Footer::parse(&long.encode().unwrap()).unwrap(), long);
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        assert!(
            Footer {
                extension_version: "v".repeat(33),
                ..footer()
            }
            .encode()
            .is_err()
        );
        assert!(
            Footer {
                platform: String::new(),
                ..footer()
            }
            .encode()
            .is_err()
        );
    }

    #[test]
    fn files_without_a_footer_are_refused() {
        assert!(Footer::parse(b"short").is_err());
        assert!(Footer::parse(&[0; 1024]).is_err());
        assert!(Footer::parse(&[0xff; 1024]).is_err());
    }

    #[test]
    fn other_abis_are_refused() {
        let mut bytes = footer().encode().unwrap();
        bytes[3 * 32..3 * 32 + 8].copy_from_slice(b"C_STRUCT");
        assert!(Footer::parse(&bytes).unwrap_err().to_string().contains("C_STRUCT"));
    }
}
