//! Commands for people who work on Duckherder, and for CI: `cargo xtask --help` lists them.

#![forbid(unsafe_code)]

mod bench;
mod ci;
mod codegen;
mod decoders;
mod demo;
mod extension;
mod files;
mod footer;
mod fuzz;
mod icu;
mod lockfile;
mod node;
mod platform;
mod process;
mod python;
mod shell;
mod steps;
mod symbols;
mod tpc;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::codegen::Mode;
use crate::extension::Profile;
use crate::workspace::Workspace;

/// Builds, tests and shows Duckherder.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the extension file and the server below build/, and check them
    BuildExtension {
        /// Build with optimizations
        #[arg(long)]
        release: bool,
    },
    /// Show the extension at work in Python's DuckDB
    Demo,
    /// Open a prompt on a local DuckDB with the extension loaded
    Shell {
        /// The database file; in memory if none is given
        database: Option<String>,
    },
    /// Run all checks and tests, up to the first failure
    Test {
        /// Skip the checks and run only tests whose names contain this
        filter: Option<String>,
    },
    /// Run what CI runs: all checks and tests
    Ci,
    /// Compare random statements on plain DuckDB and through the extension
    Fuzz {
        /// How long
        #[arg(long, default_value_t = fuzz::CI_SECONDS)]
        seconds: u64,
        /// Where to begin; random if not given, and printed
        #[arg(long)]
        seed: Option<u64>,
        /// The duckling is a coordinator with workers, and its tables are spread over them
        #[arg(long)]
        herd: bool,
    },
    /// Fuzz what reads bytes from clients, guided by coverage
    FuzzDecoders {
        /// Only this target
        target: Option<String>,
        /// How long each
        #[arg(long, default_value_t = decoders::SECONDS)]
        seconds: u64,
    },
    /// Measure, beside a local DuckDB, Quack and pyarrow.flight; fails where a bar is missed
    Bench {
        /// Options of tests/bench/run.py, --help among them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write the generated code: the protocol's Rust types and the extension's C header
    Codegen {
        /// Fail if the committed files are out of date, and write nothing
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let workspace = Workspace::locate()?;
    match task {
        Task::BuildExtension { release } => {
            let profile = if release { Profile::Release } else { Profile::Debug };
            let build = extension::build(&workspace, profile)?;
            println!("{}\n{}", build.extension.display(), build.duckling.display());
            Ok(())
        }
        Task::Demo => demo::run(&workspace),
        Task::Shell { database } => match shell::run(&workspace, database.as_deref())? {},
        Task::Test { filter } => ci::run(&workspace, filter.as_deref()),
        Task::Ci => ci::run(&workspace, None),
        Task::Fuzz { seconds, seed, herd } => fuzz::run(&workspace, seconds, seed, herd),
        Task::FuzzDecoders { target, seconds } => decoders::run(&workspace, target.as_deref(), seconds),
        Task::Bench { arguments } => bench::run(&workspace, &arguments),
        Task::Codegen { check } => codegen::run(&workspace, if check { Mode::Check } else { Mode::Write }),
    }
}
