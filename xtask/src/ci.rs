//! `cargo xtask test` and `cargo xtask ci`: every check there is, cheapest first, up to the first failure.

use std::process::Command;

use anyhow::{Result, bail};

use crate::codegen::{self, Mode};
use crate::extension::{self, Build, Profile};
use crate::fuzz;
use crate::icu;
use crate::node;
use crate::process;
use crate::python;
use crate::steps::Steps;
use crate::tpc;
use crate::workspace::Workspace;

/// What pytest says when no test matches.
const PYTEST_NO_TESTS: i32 = 5;

/// Runs all checks and all tests; with a filter, only the tests whose names contain it.
pub fn run(workspace: &Workspace, filter: Option<&str>) -> Result<()> {
    let mut steps = Steps::begin();
    if filter.is_none() {
        check(workspace, &mut steps)?;
    }
    let build = steps.run("build-extension", || extension::build(workspace, Profile::Debug))?;
    steps.run("Rust tests", || rust_tests(workspace, &build, filter))?;
    steps.run("tests in a real host", || host_tests(workspace, &build, filter))?;
    steps.run("tests of other people's clients", || {
        client_tests(workspace, &build, filter)
    })?;
    if filter.is_none() {
        steps.run("fuzzing", || fuzz::run_for_ci(workspace))?;
    }
    steps.finish();
    Ok(())
}

/// Everything that reads the sources without running them.
fn check(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.run("formatting", || {
        process::run(workspace.cargo().args(["fmt", "--all", "--check"]))
    })?;
    // Before the first build, so that all builds are of the same code.
    steps.run("ICU's sources", || icu::fetch(workspace))?;
    steps.run("lints", || lints(workspace))?;
    steps.run("dependencies", || workspace.lock_file()?.check_single())?;
    steps.run("generated code", || codegen::run(workspace, Mode::Check))
}

fn lints(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    // Clippy tracks this variable: what it said about another clone, sharing the target directory, does not count here.
    process::run(cargo.env("CLIPPY_CONF_DIR", &workspace.root))
}

fn rust_tests(workspace: &Workspace, build: &Build, filter: Option<&str>) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace"]);
    if let Some(filter) = filter {
        cargo.args(["--", filter]);
    }
    process::run(name_build(&mut cargo, build))
}

fn host_tests(workspace: &Workspace, build: &Build, filter: Option<&str>) -> Result<()> {
    let python = python::environment(workspace, &python::HOST)?;
    let mut pytest = python::pytest(workspace, &python::HOST, &python)?;
    pytest.env("DUCKHERDER_TPC", tpc::data(workspace)?);
    run_pytest(pytest, build, filter)
}

fn client_tests(workspace: &Workspace, build: &Build, filter: Option<&str>) -> Result<()> {
    let python = python::environment(workspace, &python::CLIENTS)?;
    let mut pytest = python::pytest(workspace, &python::CLIENTS, &python)?;
    let sqlalchemy = python::environment(workspace, &python::SQLALCHEMY)?;
    pytest.env("DUCKHERDER_SQLALCHEMY_PYTHON", sqlalchemy);
    if let Some(modules) = node::modules(workspace)? {
        pytest.env("DUCKHERDER_NODE_MODULES", modules);
    }
    run_pytest(pytest, build, filter)
}

fn run_pytest(mut pytest: Command, build: &Build, filter: Option<&str>) -> Result<()> {
    if let Some(filter) = filter {
        pytest.args(["-k", filter]);
    }
    let status = process::status(name_build(&mut pytest, build))?;
    let nothing_matched = filter.is_some() && status.code() == Some(PYTEST_NO_TESTS);
    if !status.success() && !nothing_matched {
        bail!("pytest failed ({status})");
    }
    Ok(())
}

/// Tells tests where the built files are.
fn name_build<'a>(command: &'a mut Command, build: &Build) -> &'a mut Command {
    command
        .env("DUCKHERDER_EXTENSION", &build.extension)
        .env("DUCKLING", &build.duckling)
}
