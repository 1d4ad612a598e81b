//! The `duckling` command.

#[cfg(target_os = "linux")]
mod allocator;
#[cfg(feature = "terminal")]
mod terminal;

use std::io::IsTerminal;
use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use duckling_server::duckdb::{DatabaseOptions, HAS_ICU};
use duckling_server::herd::JoinConfig;
use duckling_server::{Duckling, DucklingConfig, Limits, ServerError};
use tokio::net::TcpListener;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

const VERSION: &str = if HAS_ICU {
    concat!(env!("CARGO_PKG_VERSION"), " with ICU")
} else {
    concat!(env!("CARGO_PKG_VERSION"), " without ICU")
};

/// A DuckDB database, served over Arrow Flight.
#[derive(Parser)]
#[command(name = "duckling", version = VERSION, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a database until SIGINT or SIGTERM.
    Serve(ServeArgs),
    /// Run SQL on a duckling, from arguments, a script or a prompt.
    #[cfg(feature = "terminal")]
    Sql(terminal::SqlArgs),
}

#[derive(Args)]
struct ServeArgs {
    /// The database file, made if it does not exist; `:memory:` for a database that is gone with the process.
    #[arg(long, default_value = ":memory:", value_name = "PATH")]
    database: String,
    /// The address to listen on; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:8815", value_name = "HOST:PORT")]
    listen: String,
    /// DuckDB's worker threads [default: all cores].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The memory of the process, for example 4GB: DuckDB gets what other things leave, at least half [default: no limit
    /// but DuckDB's own, 80 % of memory].
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
    /// Statements that the history, `FROM duckling_history()`, remembers for all clients to see; 0 turns it off.
    #[arg(long, default_value_t = Limits::default().history_statements_max, value_name = "N")]
    history_statements: usize,
    /// Be a worker in the herd of the coordinator there, which may come later.
    #[arg(long, value_name = "HOST:PORT")]
    join: Option<String>,
    /// Where the coordinator and the other workers reach this duckling [default: what it listens on; if that is 0.0.0.0,
    /// the address that the coordinator sees it come from].
    #[arg(long, value_name = "HOST:PORT", requires = "join")]
    advertise: Option<String>,
    /// As a coordinator, spread tables that are made without PARTITIONED BY and WITH over so many partitions, 1024 at
    /// most; 0: they stay here.
    #[arg(long, default_value_t = 0, value_name = "N")]
    default_partitions: usize,
    /// Seconds that running statements get to finish at shutdown.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    drain_timeout: u64,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => run_server(args),
        #[cfg(feature = "terminal")]
        Command::Sql(args) => terminal::run(args),
    }
}

fn run_server(args: ServeArgs) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .init();
    #[cfg(target_os = "linux")]
    if args.memory_limit.is_some() {
        allocator::return_freed_memory();
    } else {
        allocator::keep_freed_memory();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("cannot start the network runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: ServeArgs) -> Result<(), ServerError> {
    let shutdown = shutdown_signal().map_err(ServerError::Listen)?;
    let listener = listen(&args.listen).await?;
    let address = listener.local_addr().map_err(ServerError::Listen)?;
    let duckling = Duckling::open(DucklingConfig {
        database: args.database.clone(),
        database_options: DatabaseOptions {
            threads: args.threads,
            ..DatabaseOptions::default()
        },
        memory_limit: args.memory_limit,
        limits: Limits {
            drain_timeout: Duration::from_secs(args.drain_timeout),
            history_statements_max: args.history_statements,
            ..Limits::default()
        },
        join: args.join.map(|coordinator| JoinConfig {
            coordinator,
            advertise: args.advertise,
        }),
        default_partitions: args.default_partitions,
        ..DucklingConfig::default()
    })?;
    // On standard output, alone: scripts that asked for port 0 read it.
    println!("{address}");
    info!(database = args.database, %address, "duckling {VERSION} serves");
    if !duckling.has_icu() {
        warn!(
            "there is no ICU: statements that clients ship see UTC, whatever their time zone is, and fail if they need \
             other calendars or collations"
        );
    }
    duckling.serve(listener, shutdown).await?;
    info!("stopped");
    Ok(())
}

async fn listen(address: &str) -> Result<TcpListener, ServerError> {
    let explain = |source: std::io::Error| {
        let hint = match source.kind() {
            std::io::ErrorKind::AddrInUse => "; another process listens there: choose another --listen, or port 0",
            std::io::ErrorKind::PermissionDenied => "; choose a port above 1023",
            _ => "",
        };
        ServerError::Listen(std::io::Error::new(source.kind(), format!("{address}: {source}{hint}")))
    };
    let addresses: Vec<_> = address.to_socket_addrs().map_err(explain)?.collect();
    TcpListener::bind(addresses.as_slice()).await.map_err(explain)
}

/// Resolves at the first SIGINT or SIGTERM.
fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
