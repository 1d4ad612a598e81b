//! `cargo xtask shell`: the prompt of `duckling sql` on a local DuckDB with the extension.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::extension::{self, Profile};
use crate::workspace::Workspace;

/// Builds what is out of date and becomes the prompt, on a database file if one is given.
pub fn run(workspace: &Workspace, database: Option<&str>) -> Result<Infallible> {
    let build = extension::build(workspace, Profile::Debug)?;
    let mut shell = Command::new(build.duckling);
    shell.args(["sql", "--database", database.unwrap_or(":memory:")]);
    // In place of this process: nobody else is to get the terminal's Ctrl-C.
    let error = shell.arg("--load-extension").arg(build.extension).exec();
    Err(error).context("cannot start the prompt")
}
