//! The Python environments for tests and for the demo.
//!
//! They live in the target directory, so that clones share them and `cargo clean` removes them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// Tests or benchmarks in Python, with the packages that they need.
pub struct Suite {
    /// Where the tests are, and their `requirements.txt`.
    tests: &'static str,
    /// The environment's name in the target directory.
    environment: &'static str,
}

/// DuckDB from PyPI with the extension.
pub const HOST: Suite = Suite {
    tests: "tests/host",
    environment: "python-env",
};

/// Other people's Arrow Flight SQL clients.
pub const CLIENTS: Suite = Suite {
    tests: "tests/clients",
    environment: "python-clients-env",
};

/// SQLAlchemy 2, which one of those clients does not go together with: for an example in the documentation.
pub const SQLALCHEMY: Suite = Suite {
    tests: "tests/clients/sqlalchemy",
    environment: "python-sqlalchemy-env",
};

/// What runs the benchmarks.
pub const BENCH: Suite = Suite {
    tests: "tests/bench",
    environment: "python-bench-env",
};

/// Quack, which needs an older DuckDB.
pub const BENCH_QUACK: Suite = Suite {
    tests: "tests/bench/quack",
    environment: "python-quack-env",
};

/// What makes the data of TPC-H and TPC-DS.
pub const TPC: Suite = Suite {
    tests: "tests/tpc",
    environment: "python-tpc-env",
};

/// A Python that has what a suite's `requirements.txt` asks for; made when missing or out of date.
pub fn environment(workspace: &Workspace, suite: &Suite) -> Result<PathBuf> {
    let requirements = workspace.path(suite.tests).join("requirements.txt");
    let wanted =
        fs::read_to_string(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let directory = workspace.target.join(suite.environment);
    let python = directory.join("bin/python");

    // Two clones may come here at once.
    fs::create_dir_all(&workspace.target).context("cannot make the target directory")?;
    let lock = File::create(directory.with_extension("lock")).context("cannot make a lock file")?;
    lock.lock()
        .context("cannot wait for another user of the Python environment")?;

    let stamp = directory.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) && works(&python) {
        return Ok(python);
    }
    make(&directory, &python, &requirements).context("cannot make the Python environment")?;
    // Last: an environment without it is taken for unfinished.
    fs::write(&stamp, wanted).context("cannot write the stamp of the Python environment")?;
    Ok(python)
}

fn works(python: &Path) -> bool {
    matches!(process::try_output(Command::new(python).args(["-c", ""])), Ok(Some(output)) if output.status.success())
}

fn make(directory: &Path, python: &Path, requirements: &Path) -> Result<()> {
    println!("making the Python environment {}", directory.display());
    let mut probe = Command::new("python3");
    match process::try_output(probe.args(["-c", "import ensurepip, venv"]))? {
        None => bail!("there is no python3"),
        Some(output) if !output.status.success() => bail!("python3 has no venv (package python3-venv)"),
        Some(_) => {}
    }
    if directory.exists() {
        fs::remove_dir_all(directory).context("cannot remove the old one")?;
    }
    process::run(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
    // Wheels only: building DuckDB's package from source would take most of an hour.
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
    ]);
    process::run(pip.args(["--only-binary", ":all:", "-r"]).arg(requirements))
}

/// A command that runs a suite's tests. Fails if there are none.
pub fn pytest(workspace: &Workspace, suite: &Suite, python: &Path) -> Result<Command> {
    if !has_tests(&workspace.path(suite.tests))? {
        bail!("there are no test files in {}", suite.tests);
    }
    let mut pytest = Command::new(python);
    pytest.current_dir(&workspace.root).args(["-m", "pytest", suite.tests]);
    Ok(pytest)
}

/// Whether a directory, or one below it, holds a file that pytest takes for tests.
fn has_tests(directory: &Path) -> Result<bool> {
    let context = || format!("cannot list {}", directory.display());
    for entry in fs::read_dir(directory).with_context(context)? {
        let entry = entry.with_context(context)?;
        let is_directory = entry.file_type().with_context(context)?.is_dir();
        if is_directory && has_tests(&entry.path())? || is_test_file(&entry.file_name().to_string_lossy()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_test_file(name: &str) -> bool {
    name.strip_suffix(".py")
        .is_some_and(|stem| stem.starts_with("test_") || stem.ends_with("_test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_files_are_those_of_pytest() {
        assert!(is_test_file("test_load.py"));
        assert!(is_test_file("load_test.py"));
        assert!(!is_test_file("conftest.py"));
        assert!(!is_test_file("test_data.csv"));
    }

    #[test]
    fn tests_are_found_in_directories_below() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("sub")).unwrap();
        fs::write(root.path().join("conftest.py"), "").unwrap();
        assert!(!has_tests(root.path()).unwrap());
        fs::write(root.path().join("sub/test_a.py"), "").unwrap();
        assert!(has_tests(root.path()).unwrap());
        assert!(has_tests(&root.path().join("missing")).is_err());
    }

    #[test]
    fn a_missing_python_does_not_work() {
        assert!(!works(Path::new("/no/such/python")));
    }
}
