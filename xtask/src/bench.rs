//! `cargo xtask bench`: Duckherder beside a local DuckDB, Quack and pyarrow.flight, as `tests/bench` has it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::extension::{self, Profile};
use crate::process;
use crate::python::{self, BENCH, BENCH_QUACK, HOST, TPC};
use crate::workspace::Workspace;

/// The raw-transfer client, an example of the client crate.
const DRAIN: &str = "drain";

/// Builds with optimizations, makes the Python environments, and measures. `arguments` go to `tests/bench/run.py`.
///
/// # Errors
/// If something could not be built or run, or a bar is missed.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let build = extension::build(workspace, Profile::Release)?;
    let python = python::environment(workspace, &BENCH)?;
    let quack_python = python::environment(workspace, &BENCH_QUACK)?;
    let host_python = python::environment(workspace, &HOST)?;
    let tpc_python = python::environment(workspace, &TPC)?;
    let drain = build_drain(workspace)?;
    let mut bench = Command::new(python);
    bench
        .arg(workspace.path("tests/bench/run.py"))
        .arg("--extension")
        .arg(build.extension)
        .arg("--duckling")
        .arg(build.duckling)
        .arg("--drain")
        .arg(drain)
        .arg("--quack-python")
        .arg(quack_python)
        .arg("--host-python")
        .arg(host_python)
        .arg("--tpc-python")
        .arg(tpc_python)
        .arg("--directory")
        .arg(workspace.target.join("bench"))
        .args(arguments);
    let status = process::status(&mut bench)?;
    if !status.success() {
        bail!("the benchmark failed, or missed a bar ({status})");
    }
    Ok(())
}

fn build_drain(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    // Together with what has just been built: by itself it would be built with other features of its dependencies.
    cargo.args(["build", "--release", "-p", "duckherder-ext", "-p", "duckling-server"]);
    cargo.args(["-p", "duckherder-client", "--example", DRAIN]);
    process::run(&mut cargo)?;
    Ok(workspace.target.join("release/examples").join(DRAIN))
}
