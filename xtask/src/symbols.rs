//! Which symbols a shared library exports.
//!
//! The extension holds a whole DuckDB, and its host holds another: a symbol of ours that the dynamic linker can see may
//! take the place of the host's. So there is exactly one, the entry point.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// How many unexpected symbols an error message names.
const NAMED_MAX: usize = 20;

/// The function that DuckDB calls when it loads an extension file named `duckherder`.
pub const ENTRY_POINT: &str = "duckherder_duckdb_cpp_init";

/// Fails unless the library exports its entry point and nothing else.
pub fn check(library: &Path) -> Result<()> {
    let macos = cfg!(target_os = "macos");
    let mut nm = Command::new("nm");
    nm.args(if macos {
        &["-gU"][..]
    } else {
        &["-D", "--defined-only"][..]
    })
    .arg(library);
    let output = process::try_output(&mut nm)?.context("checking the extension needs `nm` (package binutils)")?;
    if !output.status.success() {
        bail!("nm failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let prefix = if macos { "_" } else { "" };
    check_exports(&exported(&String::from_utf8_lossy(&output.stdout), prefix))
}

/// The names in nm's lines of `address type name`, without what the platform puts before names and without versions.
fn exported<'a>(nm: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    nm.lines()
        .filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, kind, name] if kind.len() == 1 => Some(name),
            _ => None,
        })
        .map(|name| name.split('@').next().unwrap_or(name))
        .map(|name| name.strip_prefix(prefix).unwrap_or(name))
        .collect()
}

fn check_exports(exported: &BTreeSet<&str>) -> Result<()> {
    if !exported.contains(ENTRY_POINT) {
        bail!("the extension does not export its entry point {ENTRY_POINT}");
    }
    let unexpected: Vec<_> = exported.iter().copied().filter(|name| *name != ENTRY_POINT).collect();
    if !unexpected.is_empty() {
        let more = unexpected.len().saturating_sub(NAMED_MAX);
        let mut list = unexpected[..unexpected.len() - more].join("\n  ");
        if more > 0 {
            list.push_str(&format!("\n  and {more} more"));
        }
        bail!("the extension exports more than {ENTRY_POINT}:\n  {list}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_linux_and_macos_output() {
        let linux = "0000000000001139 T duckherder_duckdb_cpp_init\n00000000000041b0 V _ZTI3Foo@@V1\n";
        assert_eq!(exported(linux, ""), BTreeSet::from(["_ZTI3Foo", ENTRY_POINT]));
        let macos = "\n/a/b.dylib:\n0000000000003f98 T _duckherder_duckdb_cpp_init\n";
        assert_eq!(exported(macos, "_"), BTreeSet::from([ENTRY_POINT]));
    }

    #[test]
    fn the_entry_point_alone_is_right() {
        check_exports(&BTreeSet::from([ENTRY_POINT])).unwrap();
    }

    #[test]
    fn the_entry_point_must_be_there() {
        let error = check_exports(&BTreeSet::from(["main"])).unwrap_err().to_string();
        assert!(error.contains("does not export"), "{error}");
    }

    #[test]
    fn others_are_named() {
        let error = check_exports(&BTreeSet::from([ENTRY_POINT, "duckdb_open", "_fini"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("duckdb_open") && error.contains("_fini"), "{error}");
    }

    #[test]
    fn very_many_are_counted() {
        let names: Vec<String> = (0..50).map(|index| format!("symbol_{index:02}")).collect();
        let mut exported: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        exported.insert(ENTRY_POINT);
        let error = check_exports(&exported).unwrap_err().to_string();
        assert!(error.contains("symbol_19") && !error.contains("symbol_20"), "{error}");
        assert!(error.ends_with("and 30 more"), "{error}");
    }
}
