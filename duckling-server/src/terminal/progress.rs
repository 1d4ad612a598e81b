//! A sign of life while a statement takes long.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Statements that are quicker show nothing.
const PATIENCE: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(100);

/// How often the statement is asked how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Shows, on standard error, for how long a statement runs, how far it is and how many rows have come. Gone when dropped.
pub struct Progress {
    bar: ProgressBar,
    timer: Option<AbortHandle>,
    next_look: Instant,
    fraction: Option<f64>,
    rows: u64,
}

impl Progress {
    /// Begins; shows something after half a second, and nothing at all unless `enabled`.
    pub fn begin(enabled: bool) -> Self {
        let bar = ProgressBar::hidden();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            bar.set_style(style);
        }
        let timer = enabled.then(|| {
            let bar = bar.clone();
            let show = async move {
                tokio::time::sleep(PATIENCE).await;
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar.enable_steady_tick(TICK);
            };
            tokio::spawn(show).abort_handle()
        });
        Self {
            bar,
            timer,
            next_look: Instant::now() + PATIENCE,
            fraction: None,
            rows: 0,
        }
    }

    /// Waits until it is worth asking the statement how far it is: for ever if nobody would see it.
    pub async fn look(&mut self) {
        if self.timer.is_none() {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.next_look).await;
        self.next_look = Instant::now() + LOOK_INTERVAL;
    }

    /// It is so far, from 0 to 1; `None` if that is not known.
    pub fn fraction(&mut self, fraction: Option<f64>) {
        self.fraction = fraction.or(self.fraction);
        self.show();
    }

    /// So many more rows have come.
    pub fn rows(&mut self, rows: u64) {
        self.rows += rows;
        self.show();
    }

    fn show(&self) {
        if self.timer.is_none() {
            return;
        }
        let percent = self.fraction.map(|fraction| format!("{:.0} %", fraction * 100.0));
        let rows = (self.rows > 0).then(|| format!("{} rows", self.rows));
        let parts: Vec<_> = percent.into_iter().chain(rows).collect();
        self.bar.set_message(parts.join("  "));
    }

    /// Takes it away; it does not come back.
    pub fn clear(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
            self.bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
