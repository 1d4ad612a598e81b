//! The sources of DuckDB's ICU extension, which `libduckdb-sys` lacks: time zones, calendars and collations.
//!
//! They are part of the source package of Python's DuckDB. pip fetches that once, checks it against the hash in
//! `duckling-server/icu-sources.txt`, and what is needed of it goes into `icu-sources` in the target directory. There
//! `duckling-server/build.rs` finds and compiles them; it never downloads anything itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::python;
use crate::workspace::Workspace;

/// What is wanted. A copy of it among the sources tells the build script that they are whole, and the right ones.
const PIN: &str = "duckling-server/icu-sources.txt";

/// Where the sources lie in the target directory.
const DIRECTORY: &str = "icu-sources";

/// Where the extension lies in the package, below the directory that is named like the package.
const PATH_IN_PACKAGE: &str = "external/duckdb/extension/icu";

/// Fetches the sources, unless they are there.
pub fn fetch(workspace: &Workspace) -> Result<()> {
    let pin_path = workspace.path(PIN);
    let pin = fs::read_to_string(&pin_path).with_context(|| format!("cannot read {}", pin_path.display()))?;
    check_version(&pin, &workspace.lock_file()?.duckdb_version()?)?;

    // Two clones may come here at once.
    fs::create_dir_all(&workspace.target).context("cannot make the target directory")?;
    let directory = workspace.target.join(DIRECTORY);
    let lock = File::create(directory.with_extension("lock")).context("cannot make a lock file")?;
    lock.lock().context("cannot wait for another user of ICU's sources")?;
    if is_complete(&directory, &pin) {
        return Ok(());
    }
    println!("fetching the sources of DuckDB's ICU extension");
    let staged = tempfile::tempdir_in(&workspace.target).context("cannot make a temporary directory")?;
    let package = download(workspace, &pin_path, staged.path())
        .context("cannot fetch the sources of DuckDB's ICU extension (`cargo build` does without it)")?;
    let sources = staged.path().join(DIRECTORY);
    unpack(&package, &sources)?;
    fs::write(sources.join(stamp_name()), &pin).context("cannot write the stamp of ICU's sources")?;
    if directory.exists() {
        fs::remove_dir_all(&directory).context("cannot remove ICU's old sources")?;
    }
    fs::rename(&sources, &directory).context("cannot put ICU's sources in their place")
}

/// Fails unless the package is of the DuckDB release that the workspace builds: the sources fit no other.
fn check_version(pin: &str, duckdb_version: &str) -> Result<()> {
    let release = duckdb_version.trim_start_matches('v');
    if !pin.lines().any(|line| line.starts_with(&format!("duckdb=={release} "))) {
        bail!("{PIN} must name the sources of DuckDB {release}, which Cargo.lock asks for");
    }
    Ok(())
}

fn is_complete(directory: &Path, pin: &str) -> bool {
    fs::read_to_string(directory.join(stamp_name())).is_ok_and(|have| have == pin)
}

fn stamp_name() -> &'static Path {
    Path::new(PIN).file_name().map_or(Path::new(PIN), Path::new)
}

/// The source package, checked by pip against the pin's hash.
fn download(workspace: &Workspace, pin: &Path, directory: &Path) -> Result<PathBuf> {
    let python = python::environment(workspace, &python::HOST)?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--quiet", "--no-input"]);
    pip.args(["--disable-pip-version-check", "--no-deps", "--require-hashes"]);
    // As sources; what pip needs to read the package's own metadata comes as wheels.
    pip.args(["--no-binary", "duckdb", "--dest"]).arg(directory);
    process::run(pip.arg("--requirement").arg(pin))?;
    let mut packages = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "gz"));
    match packages.pop() {
        Some(package) if packages.is_empty() => Ok(package),
        _ => bail!("pip did not leave one source package"),
    }
}

/// Unpacks the extension's sources, and nothing else of the package.
fn unpack(package: &Path, sources: &Path) -> Result<()> {
    let name = package.file_name().unwrap_or_default().to_string_lossy();
    let root = name
        .strip_suffix(".tar.gz")
        .context("the source package is no .tar.gz")?;
    let path = format!("{root}/{PATH_IN_PACKAGE}");
    fs::create_dir(sources).context("cannot make the directory of ICU's sources")?;
    let mut tar = Command::new("tar");
    tar.arg(format!("--strip-components={}", path.split('/').count()));
    tar.arg("-xzf").arg(package).arg("-C").arg(sources).arg(&path);
    process::run(&mut tar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_of_one_release() {
        let pin = "# text\nduckdb==2.0.0 --hash=sha256:00\n";
        check_version(pin, "v2.0.0").unwrap();
        let error = check_version(pin, "v2.0.1").unwrap_err().to_string();
        assert!(error.contains("2.0.1") && error.contains(PIN), "{error}");
    }

    #[test]
    fn sources_of_another_pin_are_not_complete() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_complete(directory.path(), "a"));
        fs::write(directory.path().join("icu-sources.txt"), "a").unwrap();
        assert!(is_complete(directory.path(), "a"));
        assert!(!is_complete(directory.path(), "b"));
    }

    #[test]
    fn only_the_extension_is_unpacked() {
        let root = tempfile::tempdir().unwrap();
        let extension = root.path().join("p-1").join(PATH_IN_PACKAGE);
        fs::create_dir_all(extension.join("include")).unwrap();
        fs::write(extension.join("include/a.hpp"), "").unwrap();
        fs::write(root.path().join("p-1/other"), "").unwrap();
        let package = root.path().join("p-1.tar.gz");
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(&package).arg("-C").arg(root.path()).arg("p-1");
        process::run(&mut tar).unwrap();
        let sources = root.path().join("sources");
        unpack(&package, &sources).unwrap();
        assert!(sources.join("include/a.hpp").is_file());
        assert_eq!(fs::read_dir(&sources).unwrap().count(), 1);
    }
}
