//! Ctrl-C: stops the statement, not the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What a shell expects of a program that SIGINT has ended.
pub const EXIT_CODE: u8 = 130;

/// Tells of SIGINT while a statement runs.
pub struct Interrupts {
    count: watch::Receiver<u64>,
    running: Arc<AtomicBool>,
}

impl Interrupts {
    /// Listens from now on. A script, unlike a prompt, is ended by a SIGINT between statements, and by the second one of
    /// a statement: it may hang where no statement can be stopped.
    ///
    /// # Errors
    /// The operating system's.
    pub fn listen(is_script: bool) -> std::io::Result<Self> {
        let mut signals = signal(SignalKind::interrupt())?;
        let running = Arc::new(AtomicBool::new(false));
        let (sender, count) = watch::channel(0);
        let statement_runs = Arc::clone(&running);
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if is_script && !statement_runs.swap(false, Ordering::SeqCst) {
                    std::process::exit(i32::from(EXIT_CODE));
                }
                sender.send_modify(|count| *count += 1);
            }
        });
        Ok(Self { count, running })
    }

    /// A statement begins: what came before was not meant for it.
    pub fn begin(&mut self) {
        self.running.store(true, Ordering::SeqCst);
        self.count.mark_unchanged();
    }

    /// A statement has ended.
    pub fn end(&self) {
        self.running.store(false, Ordering::SeqCst);
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        if self.count.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
