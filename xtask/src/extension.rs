//! `cargo xtask build-extension`: builds the server and the extension, and makes the extension a file DuckDB loads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::files::{self, Permissions};
use crate::footer::Footer;
use crate::workspace::Workspace;
use crate::{icu, platform, process, symbols};

/// How to compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Cargo's `dev` profile.
    Debug,
    /// Cargo's `release` profile.
    Release,
}

impl Profile {
    fn directory(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// What was built, as absolute paths.
pub struct Build {
    /// The file to `LOAD`.
    pub extension: PathBuf,
    /// The server's binary.
    pub duckling: PathBuf,
}

/// Builds everything, checks it, and writes it below `build/`.
pub fn build(workspace: &Workspace, profile: Profile) -> Result<Build> {
    icu::fetch(workspace)?;
    let artefacts = compile(workspace, profile)?;
    let directory = workspace.path("build").join(profile.directory());
    let build = Build {
        extension: directory.join("extension/duckherder/duckherder.duckdb_extension"),
        duckling: directory.join("duckling"),
    };
    let footer = Footer {
        platform: platform::current()?,
        duckdb_version: workspace.lock_file()?.duckdb_version()?,
        extension_version: format!("v{}", workspace.version),
    };
    check_server(&artefacts.duckling)?;
    package(&artefacts.library, &footer, &build.extension)?;
    let duckling = read(&artefacts.duckling)?;
    files::replace(&build.duckling, &duckling, Permissions::Program)?;
    Ok(build)
}

struct Artefacts {
    library: PathBuf,
    duckling: PathBuf,
}

/// One cargo invocation for both packages, so that they agree on features and share every dependency.
fn compile(workspace: &Workspace, profile: Profile) -> Result<Artefacts> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "-p", "duckherder-ext", "-p", "duckling-server"]);
    cargo.arg("--message-format=json-render-diagnostics");
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    find_artefacts(&process::capture(&mut cargo)?)
}

/// Finds the two files in cargo's messages, one JSON object a line.
fn find_artefacts(messages: &str) -> Result<Artefacts> {
    let (mut library, mut duckling) = (None, None);
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line).context("cannot parse a message of cargo")?;
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        match message["target"]["name"].as_str() {
            Some("duckherder_ext") => library = library.or_else(|| shared_library(&message)),
            Some("duckling") => duckling = message["executable"].as_str().map(PathBuf::from).or(duckling),
            _ => {}
        }
    }
    Ok(Artefacts {
        library: library.context("package duckherder-ext made no shared library")?,
        duckling: duckling.context("package duckling-server made no binary `duckling`")?,
    })
}

fn shared_library(message: &Value) -> Option<PathBuf> {
    let files = message["filenames"].as_array()?;
    let is_shared = |path: &&Path| {
        path.extension()
            .is_some_and(|extension| extension == "so" || extension == "dylib")
    };
    files
        .iter()
        .filter_map(Value::as_str)
        .map(Path::new)
        .find(is_shared)
        .map(Path::to_owned)
}

/// Writes the extension file: the library without its symbol tables, then the footer.
///
/// Checks it first, so that a file that is not fit to load never gets there.
fn package(library: &Path, footer: &Footer, extension: &Path) -> Result<()> {
    let mut content = stripped(library)?;
    content.extend(footer.encode()?);
    let directory = temporary_directory()?;
    let draft = directory.path().join("draft");
    files::replace(&draft, &content, Permissions::Data)?;
    check(&draft, footer).context("the built extension is not fit to load")?;
    files::replace(extension, &content, Permissions::Program)
}

/// The library's bytes, stripped if there is a `strip`: that is only about size.
fn stripped(library: &Path) -> Result<Vec<u8>> {
    let directory = temporary_directory()?;
    let output = directory.path().join("stripped");
    let mut strip = Command::new("strip");
    if cfg!(target_os = "macos") {
        strip.arg("-x"); // without it, macOS strips the exported symbol too, or refuses
    }
    strip.arg("-o").arg(&output).arg(library);
    match process::try_output(&mut strip)? {
        None => {
            eprintln!("warning: no `strip` (package binutils): the extension will be larger than it needs to be");
            read(library)
        }
        Some(result) if result.status.success() => read(&output),
        Some(result) => bail!("strip failed: {}", String::from_utf8_lossy(&result.stderr).trim()),
    }
}

/// Fails unless the file is one that DuckDB will load, and that cannot disturb its host.
fn check(extension: &Path, expected: &Footer) -> Result<()> {
    let found = Footer::parse(&read(extension)?)?;
    if found != *expected {
        bail!("the footer says {found:?} and not {expected:?}");
    }
    symbols::check(extension)
}

/// Fails unless the server says that it is whole. The extension has the same server in it.
fn check_server(duckling: &Path) -> Result<()> {
    let version = process::capture(Command::new(duckling).arg("--version"))?;
    if !version.trim_end().ends_with(" with ICU") {
        bail!(
            "the built server lacks ICU: `duckling --version` says {:?}",
            version.trim_end()
        );
    }
    Ok(())
}

fn temporary_directory() -> Result<TempDir> {
    tempfile::tempdir().context("cannot make a temporary directory")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "#[unsafe(no_mangle)] pub extern \"C\" fn duckherder_duckdb_cpp_init() {}\n";

    fn footer() -> Footer {
        Footer {
            platform: platform::current().unwrap(),
            duckdb_version: "v2.0.0".to_owned(),
            extension_version: "v0.1.0".to_owned(),
        }
    }

    /// Compiles `source` as the extension is compiled, and packages it.
    fn packaged(directory: &Path, source: &str) -> Result<PathBuf> {
        let (input, library) = (directory.join("input.rs"), directory.join("library.so"));
        fs::write(&input, source).unwrap();
        let mut rustc = Command::new("rustc");
        rustc
            .args(["--edition", "2024", "--crate-type", "cdylib", "-o"])
            .arg(&library)
            .arg(&input);
        process::run(&mut rustc).unwrap();
        let extension = directory.join("out/duckherder.duckdb_extension");
        package(&library, &footer(), &extension).map(|()| extension)
    }

    #[test]
    fn a_library_with_the_entry_point_passes() {
        let directory = tempfile::tempdir().unwrap();
        let extension = packaged(directory.path(), ENTRY).unwrap();
        check(&extension, &footer()).unwrap();
        let other = Footer {
            duckdb_version: "v2.0.1".to_owned(),
            ..footer()
        };
        assert!(check(&extension, &other).unwrap_err().to_string().contains("v2.0.1"));
    }

    #[test]
    fn a_library_with_another_export_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let source = format!("{ENTRY}#[unsafe(no_mangle)] pub extern \"C\" fn duckdb_open() {{}}\n");
        let error = packaged(directory.path(), &source).unwrap_err();
        assert!(format!("{error:#}").contains("duckdb_open"), "{error:#}");
        assert!(!directory.path().join("out").exists());
    }

    #[test]
    fn finds_artefacts_in_cargos_messages() {
        let messages = r#"
{"reason":"build-script-executed"}
{"reason":"compiler-artifact","target":{"name":"duckherder_ext"},"filenames":["/t/libduckherder_ext.so","/t/libduckherder_ext.rlib"],"executable":null}
{"reason":"compiler-artifact","target":{"name":"duckling"},"filenames":["/t/duckling"],"executable":"/t/duckling"}
{"reason":"build-finished","success":true}
"#;
        let artefacts = find_artefacts(messages).unwrap();
        assert_eq!(artefacts.library, Path::new("/t/libduckherder_ext.so"));
        assert_eq!(artefacts.duckling, Path::new("/t/duckling"));
        assert!(find_artefacts("").err().unwrap().to_string().contains("duckherder-ext"));
    }
}
