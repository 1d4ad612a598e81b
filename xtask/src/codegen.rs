//! `cargo xtask codegen`: the generated files that are committed.
//!
//! They are committed so that building needs neither generator, and so that a change of the protocol or of the C
//! interface shows in review.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::files::{self, Permissions};
use crate::process;
use crate::workspace::Workspace;

const PROTO_INCLUDE: &str = "duckherder-proto/proto";
const PROTO: &str = "duckherder-proto/proto/duckherder/v1/duckherder.proto";
const PROTO_MODULE: &str = "duckherder.v1.rs";
const PROTO_OUTPUT: &str = "duckherder-proto/src/generated/duckherder.v1.rs";

const HEADER_CRATE: &str = "duckherder-ext";
const HEADER_CONFIG: &str = "duckherder-ext/cbindgen.toml";
const HEADER_OUTPUT: &str = "duckherder-ext/cpp/include/duckherder_ffi.h";

/// What to do with what was generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Write it.
    Write,
    /// Fail if the committed file is not the same.
    Check,
}

/// Generates the Rust types of the protocol, and the C header of the extension's Rust half.
pub fn run(workspace: &Workspace, mode: Mode) -> Result<()> {
    let proto = proto(workspace).context("cannot generate Rust code for the protocol")?;
    deliver(workspace, PROTO_OUTPUT, &proto, mode)?;
    if workspace.path(HEADER_CONFIG).exists() {
        let header = header(workspace).context("cannot generate the C header of duckherder-ext")?;
        deliver(workspace, HEADER_OUTPUT, &header, mode)?;
    }
    Ok(())
}

/// protox reads the `.proto` file, so that nobody needs `protoc`.
fn proto(workspace: &Workspace) -> Result<Vec<u8>> {
    let descriptors = protox::compile([workspace.path(PROTO)], [workspace.path(PROTO_INCLUDE)])
        .map_err(|error| anyhow!("{error:?}"))?;
    let directory = tempfile::tempdir()?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .out_dir(directory.path())
        .compile_fds(descriptors)?;
    let output = directory.path().join(PROTO_MODULE);
    let mut rustfmt = Command::new("rustfmt");
    rustfmt
        .args(["--edition", "2024", "--config-path"])
        .arg(workspace.path("rustfmt.toml"))
        .arg(&output);
    process::run(&mut rustfmt)?;
    fs::read(&output).context("prost-build did not write the module")
}

fn header(workspace: &Workspace) -> Result<Vec<u8>> {
    let config = cbindgen::Config::from_file(workspace.path(HEADER_CONFIG)).map_err(|error| anyhow!(error))?;
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_crate(workspace.path(HEADER_CRATE))
        .generate()?;
    let mut header = Vec::new();
    bindings.write(&mut header);
    Ok(header)
}

fn deliver(workspace: &Workspace, output: &str, content: &[u8], mode: Mode) -> Result<()> {
    let path = workspace.path(output);
    let committed = read_if_exists(&path)?;
    if committed.as_deref() == Some(content) {
        return Ok(());
    }
    match mode {
        Mode::Write => {
            files::replace(&path, content, Permissions::Data)?;
            println!("wrote {output}");
            Ok(())
        }
        Mode::Check => bail!(
            "{output} {}; run `cargo xtask codegen`",
            difference(committed.as_deref(), content)
        ),
    }
}

fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn difference(committed: Option<&[u8]>, generated: &[u8]) -> String {
    let Some(committed) = committed else {
        return "does not exist".to_owned();
    };
    let lines = |content: &[u8]| {
        content
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::to_owned)
            .collect::<Vec<_>>()
    };
    let (committed, generated) = (lines(committed), lines(generated));
    let same = committed
        .iter()
        .zip(&generated)
        .take_while(|(left, right)| left == right)
        .count();
    format!("is out of date from line {}", same + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_say_where() {
        assert_eq!(difference(None, b""), "does not exist");
        assert_eq!(
            difference(Some(b"a\nb\nc\n"), b"a\nx\nc\n"),
            "is out of date from line 2"
        );
        assert_eq!(difference(Some(b"a\n"), b"a\nb\n"), "is out of date from line 2");
    }
}
