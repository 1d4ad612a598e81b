//! `Cargo.lock`: which versions are in use, and that there is one of each that must be one.

use anyhow::{Context, Result, bail};

/// Crates whose types cross crate borders here, or that take very long to build: two versions of one are a mistake.
const SINGLE: [&str; 2] = ["arrow", "libduckdb-sys"];

/// The packages of a `Cargo.lock`.
pub struct LockFile {
    packages: Vec<Package>,
}

struct Package {
    name: String,
    version: String,
}

impl LockFile {
    /// Reads the text of a `Cargo.lock`; its packages are tables of `key = "value"` lines, the name first.
    pub fn parse(text: &str) -> Self {
        let mut packages: Vec<Package> = Vec::new();
        for line in text.lines() {
            if let Some(name) = string_value(line, "name") {
                packages.push(Package {
                    name: name.to_owned(),
                    version: String::new(),
                });
            } else if let (Some(version), Some(package)) = (string_value(line, "version"), packages.last_mut()) {
                package.version = version.to_owned();
            }
        }
        Self { packages }
    }

    fn versions<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.packages
            .iter()
            .filter(move |package| package.name == name)
            .map(|package| package.version.as_str())
    }

    /// Fails unless each crate that must be there once is there once.
    pub fn check_single(&self) -> Result<()> {
        for name in SINGLE {
            let versions: Vec<_> = self.versions(name).collect();
            if versions.len() != 1 {
                let found = if versions.is_empty() {
                    "none".to_owned()
                } else {
                    versions.join(", ")
                };
                bail!("Cargo.lock must hold exactly one version of {name}, but it holds {found}");
            }
        }
        Ok(())
    }

    /// The DuckDB release that the workspace builds, as DuckDB spells it: `v2.0.0`.
    pub fn duckdb_version(&self) -> Result<String> {
        let version = self
            .versions("libduckdb-sys")
            .next()
            .context("libduckdb-sys is not in Cargo.lock")?;
        duckdb_version(version)
            .with_context(|| format!("cannot tell which DuckDB release libduckdb-sys {version} stands for"))
    }
}

fn string_value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')
}

/// `libduckdb-sys` packs DuckDB's version into its own minor version: `1.20103.x` is DuckDB 2.1.3.
fn duckdb_version(crate_version: &str) -> Option<String> {
    let packed: u32 = crate_version.split('.').nth(1)?.parse().ok()?;
    let (major, minor, patch) = (packed / 10_000, packed / 100 % 100, packed % 100);
    (major > 0).then(|| format!("v{major}.{minor}.{patch}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
version = 4

[[package]]
name = "arrow"
version = "60.0.0"
dependencies = [
 "arrow-array",
]

[[package]]
name = "libduckdb-sys"
version = "1.20000.1"
"#;

    #[test]
    fn one_of_each_is_right() {
        LockFile::parse(LOCK).check_single().unwrap();
        assert_eq!(LockFile::parse(LOCK).duckdb_version().unwrap(), "v2.0.0");
    }

    #[test]
    fn two_of_one_are_named() {
        let lock = format!("{LOCK}\n[[package]]\nname = \"arrow\"\nversion = \"59.1.0\"\n");
        let error = LockFile::parse(&lock).check_single().unwrap_err().to_string();
        assert!(error.contains("arrow") && error.contains("60.0.0, 59.1.0"), "{error}");
    }

    #[test]
    fn none_is_wrong_too() {
        let error = LockFile::parse("").check_single().unwrap_err().to_string();
        assert!(error.contains("arrow") && error.contains("none"), "{error}");
    }

    #[test]
    fn unpacks_duckdb_versions() {
        assert_eq!(duckdb_version("1.20000.1").as_deref(), Some("v2.0.0"));
        assert_eq!(duckdb_version("1.20103.0").as_deref(), Some("v2.1.3"));
        assert_eq!(duckdb_version("1.10501.0").as_deref(), Some("v1.5.1"));
        assert_eq!(duckdb_version("1.4.2"), None);
        assert_eq!(duckdb_version("nonsense"), None);
    }
}
