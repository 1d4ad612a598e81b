//! DuckDB's name for a platform, as `PRAGMA platform` shows it: an extension must carry the name of its host's.

use std::env::consts;

use anyhow::{Result, bail};

/// The platform that this program, and so the extension, is built for.
pub fn current() -> Result<String> {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "" };
    name(consts::OS, consts::ARCH, libc)
}

/// The platform for a Rust `target_os`, `target_arch` and `target_env`. Follows `DuckDBPlatform()` in DuckDB's
/// `common/platform.hpp`.
fn name(os: &str, arch: &str, libc: &str) -> Result<String> {
    let duckdb_os = match os {
        "linux" => "linux",
        "macos" => "osx",
        _ => bail!("extensions for {os} are not supported"),
    };
    let duckdb_arch = match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => bail!("extensions for {arch} processors are not supported"),
    };
    let suffix = if os == "linux" && libc == "musl" { "_musl" } else { "" };
    Ok(format!("{duckdb_os}_{duckdb_arch}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_duckdbs() {
        assert_eq!(name("linux", "x86_64", "gnu").unwrap(), "linux_amd64");
        assert_eq!(name("linux", "aarch64", "gnu").unwrap(), "linux_arm64");
        assert_eq!(name("linux", "x86_64", "musl").unwrap(), "linux_amd64_musl");
        assert_eq!(name("macos", "x86_64", "").unwrap(), "osx_amd64");
        assert_eq!(name("macos", "aarch64", "").unwrap(), "osx_arm64");
    }

    #[test]
    fn others_are_refused() {
        assert!(name("windows", "x86_64", "msvc").is_err());
        assert!(name("linux", "riscv64", "gnu").is_err());
    }
}
