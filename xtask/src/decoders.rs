//! `cargo xtask fuzz-decoders`: coverage-guided fuzzing of everything that reads bytes from clients.
//!
//! The targets are in `fuzz/`, a workspace of its own. They are built for libFuzzer with the stable compiler: its
//! instrumentation needs no more than flags.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// What is fuzzed: each a binary of `fuzz/`.
const TARGETS: [&str; 4] = ["requests", "flight_sql", "upload", "answers"];

/// How long each is fuzzed, in seconds.
pub const SECONDS: u64 = 600;

/// Beyond it an input counts as a finding: seconds of one run, and MiB of the process.
const TIMEOUT_SECONDS: u32 = 10;
const MEMORY_MIB: u32 = 2048;

const INSTRUMENTATION: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// Fuzzes one target, or all, for `seconds` each. Inputs that were found are kept in the target directory, and a finding
/// is left in `fuzz/artifacts`.
pub fn run(workspace: &Workspace, only: Option<&str>, seconds: u64) -> Result<()> {
    if let Some(only) = only.filter(|only| !TARGETS.contains(only)) {
        bail!("there is no target {only}: {} are", TARGETS.join(", "));
    }
    let host = host()?;
    let output = workspace.target.join("fuzz");
    let corpus = output.join("corpus");
    let cargo = |arguments: &[&str]| {
        let mut cargo = process::cargo(&workspace.path("fuzz"));
        cargo.env("CARGO_TARGET_DIR", &output).args(arguments);
        cargo
    };
    process::run(cargo(&["run", "--quiet", "--example", "seeds", "--"]).arg(&corpus))?;
    // With a target, the flags are not those of build scripts.
    let mut build = cargo(&["build", "--release", "--bins", "--target", &host]);
    process::run(build.env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\u{1f}")))?;
    for target in TARGETS
        .into_iter()
        .filter(|target| only.is_none_or(|only| only == *target))
    {
        println!("\n=== {target}, for {seconds} s");
        let artifacts = workspace.path("fuzz/artifacts").join(target);
        std::fs::create_dir_all(&artifacts).context("cannot make the directory for findings")?;
        let mut fuzzer = Command::new(output.join(&host).join("release").join(target));
        fuzzer
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={TIMEOUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-verbosity=0", "-print_final_stats=1"])
            .arg(corpus.join(target));
        process::run(&mut fuzzer).with_context(|| format!("a finding, in {}", artifacts.display()))?;
    }
    Ok(())
}

/// The triple of this machine.
fn host() -> Result<String> {
    let version = process::capture(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("rustc does not say for which machine it compiles")
}
