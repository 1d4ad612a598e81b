//! `cargo xtask fuzz`: the differential fuzzer of the end-to-end tests.

use anyhow::Result;

use crate::process;
use crate::workspace::Workspace;

/// How long CI fuzzes, in seconds.
pub const CI_SECONDS: u64 = 60;

/// Compares random statements on plain DuckDB and through the extension, for `seconds`; without a seed, with a random
/// one, which is printed.
pub fn run(workspace: &Workspace, seconds: u64, seed: Option<u64>) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--package", "duckherder-tests", "--test", "end_to_end", "--"])
        .args([
            "--ignored",
            "--exact",
            "fuzz::nothing_differs_from_plain_duckdb",
            "--nocapture",
        ])
        .env("DUCKHERDER_FUZZ_SECONDS", seconds.to_string());
    if let Some(seed) = seed {
        cargo.env("DUCKHERDER_FUZZ_SEED", seed.to_string());
    }
    process::run(&mut cargo)
}
