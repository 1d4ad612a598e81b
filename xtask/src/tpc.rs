//! The data and the queries of TPC-H and TPC-DS, for the tests of a herd.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::python::{self, TPC};
use crate::workspace::Workspace;

/// What is made, and the scale factor: enough rows for every query to find some.
const SCALE: &str = "0.01";

/// A directory with one directory for each of the two; made when missing.
///
/// # Errors
/// The Python environment, or the data, cannot be made.
pub fn data(workspace: &Workspace) -> Result<PathBuf> {
    let python = python::environment(workspace, &TPC)?;
    let directory = workspace.target.join(format!("tpc-{SCALE}"));
    for name in ["tpch", "tpcds"] {
        let directory = directory.join(name);
        // Written last.
        if directory.join("queries.json").exists() {
            continue;
        }
        let mut generate = Command::new(&python);
        generate.arg(workspace.path("tests/tpc/generate.py"));
        generate.args([name, SCALE]).arg(&directory);
        process::run(&mut generate).with_context(|| format!("cannot make the data of {name}"))?;
    }
    Ok(directory)
}
