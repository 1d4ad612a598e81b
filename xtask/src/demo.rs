//! `cargo xtask demo`: a short tour in Python's DuckDB.

use std::process::Command;

use anyhow::Result;

use crate::extension::{self, Profile};
use crate::process;
use crate::python;
use crate::workspace::Workspace;

/// Builds what is out of date and runs the tour.
pub fn run(workspace: &Workspace) -> Result<()> {
    let build = extension::build(workspace, Profile::Debug)?;
    let python = python::environment(workspace, &python::HOST)?;
    process::run(
        Command::new(python)
            .arg(workspace.path("xtask/demo/demo.py"))
            .arg(build.extension),
    )
}
