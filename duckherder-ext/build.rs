//! Compiles the C++ layer against the headers that `libduckdb-sys` publishes.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-changed=../duckling-server/cpp");
    let include = std::env::var("DEP_DUCKDB_INCLUDE")?;
    let mut sources: Vec<PathBuf> = std::fs::read_dir("cpp")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cpp"));
    sources.sort();
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .files(sources)
        .include("cpp")
        .include("cpp/include")
        // What both write SQL with; the server's crate compiles it.
        .include("../duckling-server/cpp")
        // As system headers: their warnings are not ours.
        .flag(format!("-isystem{include}"))
        .flag(format!("-isystem{include}/../../third_party/fmt/include"))
        .flag("-Wall")
        .flag("-Wextra")
        .flag("-Werror")
        // In every profile: with DEBUG, DuckDB's headers declare other class members than the host was built with.
        .define("NDEBUG", None)
        .flag_if_supported("-fvisibility=hidden")
        .compile("duckherder_cpp");
    if std::env::var("CARGO_CFG_TARGET_OS")? == "linux" {
        // A symbol that is missing is an error here, and not when a user loads the extension.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,defs");
    }
    Ok(())
}
