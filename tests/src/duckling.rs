//! Ducklings for tests: in this process on a free port, or as processes of their own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use duckherder_client::ClientOptions;
use duckling_server::duckdb::DatabaseOptions;
use duckling_server::herd::Herd;
use duckling_server::{Duckling, DucklingConfig, Limits, ServerError};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long a stopped duckling of a test may still work on what it has.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// Where the ducklings of this process run: tests come with runtimes that end with them.
static RUNTIME: LazyLock<Result<Runtime, String>> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("duckling")
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
});

/// The runtime of the ducklings in this process.
///
/// # Errors
/// If the operating system refuses threads.
pub fn runtime() -> Result<&'static Runtime> {
    RUNTIME.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// The configuration of a test's duckling: in memory, two threads, quickly stopped.
#[must_use]
pub fn config() -> DucklingConfig {
    DucklingConfig {
        database_options: DatabaseOptions {
            threads: Some(2),
            ..DatabaseOptions::default()
        },
        limits: Limits {
            drain_timeout: DRAIN_TIMEOUT,
            ..Limits::default()
        },
        ..DucklingConfig::default()
    }
}

/// A duckling in this process. Dropped, it stops.
pub struct LocalDuckling {
    port: u16,
    herd: Arc<Herd>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<Result<(), ServerError>>>,
}

impl LocalDuckling {
    /// Starts one with an empty database in memory.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start() -> Result<Self> {
        Self::start_with(config())
    }

    /// Starts one.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_with(config: DucklingConfig) -> Result<Self> {
        let duckling = Duckling::open(config)?;
        let herd = Arc::clone(duckling.herd());
        let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        let runtime = runtime()?;
        let _entered = runtime.enter();
        let listener = TcpListener::from_std(socket)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = runtime.spawn(duckling.serve(listener, async move { drop(stopped.await) }));
        Ok(Self {
            port,
            herd,
            stop: Some(stop),
            serving: Some(serving),
        })
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has of the herd.
    #[must_use]
    pub fn herd(&self) -> &Arc<Herd> {
        &self.herd
    }

    /// How to reach it.
    #[must_use]
    pub fn options(&self) -> ClientOptions {
        ClientOptions::new("127.0.0.1", self.port)
    }

    /// Asks it to stop, without waiting.
    pub fn begin_stop(&mut self) {
        self.stop.take();
    }

    /// Stops it and waits until it has.
    ///
    /// # Errors
    /// What stopping it failed with.
    pub async fn stop(mut self) -> Result<()> {
        self.begin_stop();
        if let Some(serving) = self.serving.take() {
            serving.await??;
        }
        Ok(())
    }
}

/// A duckling in a process of its own. Dropped, it is killed.
pub struct DucklingProcess {
    child: Child,
    port: u16,
}

impl DucklingProcess {
    /// Starts the binary with a database file on a free port, and waits until it serves.
    ///
    /// # Errors
    /// If there is no binary (build it with `cargo build -p duckling-server`), or it does not start.
    pub fn start(database: &Path) -> Result<Self> {
        let mut child = Command::new(binary()?)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--threads",
                "2",
                "--drain-timeout",
                "1",
            ])
            .arg("--database")
            .arg(database)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the duckling")?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let Some(port) = line.trim().rsplit(':').next().and_then(|port| port.parse().ok()) else {
            let _ = child.kill();
            bail!(
                "the duckling printed {line:?} instead of its address, and ended with {:?}",
                child.wait()
            );
        };
        Ok(Self { child, port })
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How to reach it.
    #[must_use]
    pub fn options(&self) -> ClientOptions {
        ClientOptions::new("127.0.0.1", self.port)
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no chance to say good-bye.
    ///
    /// # Errors
    /// The operating system's.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, as an operator stops it; how it ended.
    ///
    /// # Errors
    /// If it has not ended within `deadline`.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let status = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        anyhow::ensure!(status.success(), "cannot signal the duckling");
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            anyhow::ensure!(
                started.elapsed() < deadline,
                "the duckling still runs after {deadline:?}"
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for DucklingProcess {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The binary: what `DUCKLING` names, else the one beside this test's directory.
fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DUCKLING") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let beside = test
        .ancestors()
        .skip(2)
        .map(|directory| directory.join("duckling"))
        .next();
    beside
        .filter(|path| path.is_file())
        .context("no duckling binary is built: cargo build -p duckling-server, or set DUCKLING")
}
