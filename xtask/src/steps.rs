//! A run of named steps: a heading and the time for each, and a summary at the end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The steps that have passed so far.
pub struct Steps {
    started: Instant,
    passed: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Starts the clock.
    pub fn begin() -> Self {
        Self {
            started: Instant::now(),
            passed: Vec::new(),
        }
    }

    /// Runs one step. On failure, prints the summary and names the step in the error.
    pub fn run<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n=== {name}");
        let started = Instant::now();
        let result = step();
        let elapsed = started.elapsed();
        match &result {
            Ok(_) => {
                println!("--- {name}: {}", seconds(elapsed));
                self.passed.push((name, elapsed));
            }
            Err(_) => print!("{}", self.summary(Some((name, elapsed)))),
        }
        result.with_context(|| format!("step `{name}` failed"))
    }

    /// Prints the summary of a run in which every step passed.
    pub fn finish(self) {
        print!("{}", self.summary(None));
        println!("everything passed in {}", seconds(self.started.elapsed()));
    }

    fn summary(&self, failed: Option<(&str, Duration)>) -> String {
        let passed = self.passed.iter().map(|(name, elapsed)| ("passed", *name, *elapsed));
        let failed = failed.map(|(name, elapsed)| ("FAILED", name, elapsed));
        let mut text = "\n=== summary\n".to_owned();
        for (outcome, name, elapsed) in passed.chain(failed) {
            text.push_str(&format!("{outcome}  {:>9}  {name}\n", seconds(elapsed)));
        }
        text
    }
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_failure_is_named_and_ends_the_summary() {
        let mut steps = Steps::begin();
        assert_eq!(steps.run("first", || Ok(7)).unwrap(), 7);
        let error = steps.run("second", || Err::<(), _>(anyhow!("why"))).unwrap_err();
        assert_eq!(format!("{error:#}"), "step `second` failed: why");
        let summary = steps.summary(Some(("second", Duration::from_millis(1250))));
        assert!(summary.contains("passed      0.0 s  first\n"), "{summary}");
        assert!(summary.ends_with("FAILED      1.2 s  second\n"), "{summary}");
    }
}
