//! Compiles the C++ layer, which plans queries over a herd's tables, against the headers that `libduckdb-sys` publishes;
//! and DuckDB's ICU extension, if its sources are there: `libduckdb-sys` does not have it.
//!
//! `cargo xtask` puts them into the target directory (`xtask/src/icu.rs`); this script downloads nothing. Without them
//! the server is built without ICU, and says so when it starts.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// The directory of the sources, and the file in it that tells which ones they are.
const DIRECTORY: &str = "icu-sources";
const STAMP: &str = "icu-sources.txt";

/// Where its C++ files and headers are. Not recursive: `scripts` and the like are not for us.
const SOURCE_DIRECTORIES: [&str; 5] = [
    ".",
    "collation",
    "collation/generated",
    "datetime",
    "datetime/generated",
];
const INCLUDE_DIRECTORIES: [&str; 4] = [".", "include", "collation/include", "datetime/include"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rustc-check-cfg=cfg(icu)");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={STAMP}");
    compile_layer()?;
    let wanted = fs::read_to_string(STAMP)?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let found = out_dir
        .ancestors()
        .map(|directory| directory.join(DIRECTORY))
        .find(|directory| fs::read_to_string(directory.join(STAMP)).is_ok_and(|have| have == wanted));
    match found {
        Some(sources) => {
            println!("cargo:rerun-if-changed={}", sources.display());
            compile(&sources)?;
            println!("cargo:rustc-cfg=icu");
            println!("cargo:rustc-env=ICU_VERSION={}", version(&wanted)?);
        }
        None => {
            watch_for_sources(&out_dir)?;
            println!(
                "cargo:warning=duckling-server is built without ICU (time zones, calendars, collations); \
                 `cargo xtask build-extension` builds it in"
            );
        }
    }
    Ok(())
}

/// The C++ layer in `cpp/`.
fn compile_layer() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=cpp");
    let include = std::env::var("DEP_DUCKDB_INCLUDE")?;
    let mut files: Vec<PathBuf> = fs::read_dir("cpp")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "cpp"));
    files.sort();
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .files(files)
        .include("cpp")
        // As system headers: their warnings are not ours.
        .flag(format!("-isystem{include}"))
        .flag(format!("-isystem{include}/../../third_party/fmt/include"))
        .flag(format!("-isystem{include}/../../third_party/yyjson/include"))
        .flag("-Wall")
        .flag("-Wextra")
        .flag("-Werror")
        // In every profile: with DEBUG, DuckDB's headers declare other class members than it was built with.
        .define("NDEBUG", None)
        .flag_if_supported("-fvisibility=hidden")
        .compile("duckling_cpp");
    Ok(())
}

/// Makes cargo run this script again when the sources have come: `<target>/<profile>/build/<package>/out` is ours.
fn watch_for_sources(out_dir: &Path) -> Result<(), Box<dyn Error>> {
    let target = out_dir
        .ancestors()
        .nth(4)
        .ok_or("OUT_DIR is not in a target directory")?;
    let directory = target.join(DIRECTORY);
    // Cargo takes a missing path for a changed one, and would build the crate anew each time.
    fs::create_dir_all(&directory)?;
    println!("cargo:rerun-if-changed={}", directory.display());
    Ok(())
}

/// DuckDB spells `v2.0.0` what pip spells `duckdb==2.0.0`.
fn version(pin: &str) -> Result<String, Box<dyn Error>> {
    let version = pin
        .lines()
        .find_map(|line| line.strip_prefix("duckdb==")?.split(' ').next());
    Ok(format!("v{}", version.ok_or("the pin names no version of duckdb")?))
}

fn compile(sources: &Path) -> Result<(), Box<dyn Error>> {
    let include = PathBuf::from(std::env::var("DEP_DUCKDB_INCLUDE")?);
    let third_party = include.join("../../third_party");
    let mut files = Vec::new();
    for directory in SOURCE_DIRECTORIES {
        for entry in fs::read_dir(sources.join(directory))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "cpp") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .files(files)
        .include(&include)
        .include(third_party.join("fmt/include"))
        .include(third_party.join("zstd/include"))
        .includes(INCLUDE_DIRECTORIES.map(|directory| sources.join(directory)))
        .warnings(false)
        .flag_if_supported("-w")
        // As DuckDB itself, in every profile: the same class members, the same speed.
        .define("NDEBUG", None)
        .opt_level(3)
        .debug(false)
        .flag_if_supported("-fvisibility=hidden")
        .compile("duckling_icu");
    Ok(())
}
