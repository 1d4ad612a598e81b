//! The JavaScript packages for the tests of other people's clients.
//!
//! They live in the target directory, as the Python environments do.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// What to install, exactly.
const MANIFEST: &str = "package.json";
const LOCK: &str = "package-lock.json";

/// Where the packages of `tests/clients/javascript` are; installed when missing or out of date. `None`, with a notice,
/// if there is no npm.
pub fn modules(workspace: &Workspace) -> Result<Option<PathBuf>> {
    let sources = workspace.path("tests/clients/javascript");
    let directory = workspace.target.join("node-clients-env");
    let modules = directory.join("node_modules");
    fs::create_dir_all(&directory).context("cannot make the directory for JavaScript packages")?;

    // Two clones may come here at once.
    let lock = File::create(directory.with_extension("lock")).context("cannot make a lock file")?;
    lock.lock()
        .context("cannot wait for another user of the JavaScript packages")?;

    let wanted = fs::read(sources.join(LOCK)).with_context(|| format!("cannot read {LOCK}"))?;
    let stamp = directory.join("installed");
    if fs::read(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(Some(modules));
    }
    if process::try_output(Command::new("npm").arg("--version"))?.is_none() {
        println!("NOTICE: there is no npm, so the JavaScript clients are not tested: install Node.js 20 or newer");
        return Ok(None);
    }
    println!("installing the JavaScript packages");
    for name in [MANIFEST, LOCK] {
        fs::copy(sources.join(name), directory.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    let mut npm = Command::new("npm");
    npm.current_dir(&directory)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    process::run(&mut npm).context("cannot install the JavaScript packages")?;
    // Last: packages without it are taken for unfinished.
    fs::write(&stamp, wanted).context("cannot write the stamp of the JavaScript packages")?;
    Ok(Some(modules))
}
