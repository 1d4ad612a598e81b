//! Runs other programs, and says which one failed.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Where Debian puts the compiler wrappers of ccache.
const CCACHE_DIR: &str = "/usr/lib/ccache";

/// A cargo command for the workspace at `root`, which compiles C++ through ccache where that is installed.
///
/// ccache comes in through `PATH` and not `CXX`: build scripts track `CXX`, so that changing it would rebuild DuckDB.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(describes_package) {
            command.env_remove(name);
        }
    }
    if let Some(path) = path_with_ccache(Path::new(CCACHE_DIR)) {
        command.env("PATH", path);
    }
    command
}

/// Whether `cargo run` sets this variable to describe the package it runs (here: xtask).
///
/// Some build scripts track such variables. Handed on, they would make `cargo xtask` and plain `cargo` rebuild
/// each other's work.
fn describes_package(variable: &str) -> bool {
    variable.starts_with("CARGO_PKG_")
        || matches!(
            variable,
            "CARGO_MANIFEST_DIR" | "CARGO_MANIFEST_PATH" | "CARGO_MANIFEST_LINKS"
        )
}

fn path_with_ccache(ccache: &Path) -> Option<OsString> {
    if !ccache.is_dir() {
        return None;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let rest = env::split_paths(&path).filter(|directory| directory != ccache);
    env::join_paths([PathBuf::from(ccache)].into_iter().chain(rest)).ok()
}

/// Runs a command to its end, its output going to the terminal. Fails unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed ({status})", command_line(command));
    }
    Ok(())
}

/// Runs a command to its end, its output going to the terminal. Fails only if it cannot be started.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{}`", command_line(command)))
}

/// Runs a command to its end and returns what it wrote to standard output; standard error goes to the terminal.
pub fn capture(command: &mut Command) -> Result<String> {
    let line = command_line(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` wrote something that is not UTF-8"))
}

/// Runs a command silently. `None` if there is no such program.
pub fn try_output(command: &mut Command) -> Result<Option<Output>> {
    let line = command_line(command);
    match command.stdin(Stdio::null()).output() {
        Ok(output) => Ok(Some(output)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot start `{line}`")),
    }
}

/// What a person would type, near enough, for messages.
fn command_line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_names_the_program_without_its_directory() {
        assert_eq!(
            command_line(Command::new("/usr/bin/cargo").args(["fmt", "--all"])),
            "cargo fmt --all"
        );
    }

    #[test]
    fn package_variables_are_told_apart_from_settings() {
        assert!(describes_package("CARGO_PKG_NAME"));
        assert!(describes_package("CARGO_MANIFEST_DIR"));
        assert!(!describes_package("CARGO_TARGET_DIR"));
        assert!(!describes_package("CARGO_HOME"));
    }

    #[test]
    fn ccache_is_used_only_where_it_is_installed() {
        assert_eq!(path_with_ccache(Path::new("/no/such/directory")), None);
        let installed = tempfile::tempdir().unwrap();
        let path = path_with_ccache(installed.path()).unwrap();
        assert_eq!(env::split_paths(&path).next().as_deref(), Some(installed.path()));
    }

    #[test]
    fn failure_names_the_command() {
        let error = run(Command::new("false").arg("x")).unwrap_err();
        assert!(error.to_string().starts_with("`false x` failed"), "{error}");
        let error = run(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(
            error.to_string().contains("cannot start `no-such-program-here`"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_program_is_not_an_error_when_asked_so() {
        assert!(try_output(&mut Command::new("no-such-program-here")).unwrap().is_none());
        assert!(try_output(&mut Command::new("true")).unwrap().is_some());
    }
}
