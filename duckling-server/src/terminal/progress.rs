//! A sign of life while a statement takes long.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::AbortHandle;

/// Statements that are quicker show nothing.
const PATIENCE: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(100);

/// Shows, on standard error, for how long a statement runs and how many rows have come. Gone when dropped.
pub struct Progress {
    bar: ProgressBar,
    timer: Option<AbortHandle>,
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
        Self { bar, timer }
    }

    /// So many rows have come.
    pub fn rows(&self, rows: u64) {
        if rows > 0 && self.timer.is_some() {
            self.bar.set_message(format!("{rows} rows"));
        }
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
