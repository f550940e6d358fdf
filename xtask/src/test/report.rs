//! The table at the end of `cargo xtask test`.

use std::fmt;
use std::time::Duration;

use super::Outcome;

/// One finished step.
pub(super) struct Row {
    pub(super) step: &'static str,
    pub(super) outcome: Outcome,
    pub(super) time: Duration,
}

/// All finished steps, and the ones a failure kept from running.
#[derive(Default)]
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    pub(super) not_reached: Vec<&'static str>,
}

impl Report {
    pub(super) fn failed(&self) -> bool {
        self.rows.iter().any(|row| matches!(row.outcome, Outcome::Failed(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10} {:<8} {:>8}", "step", "result", "seconds")?;
        for row in &self.rows {
            let (result, note) = match &row.outcome {
                Outcome::Passed(note) => ("ok", note),
                Outcome::Skipped { reason, .. } => ("skipped", reason),
                Outcome::Failed(why) => ("FAILED", why),
            };
            // A long reason has been printed in full where it happened.
            let note = note.lines().next().unwrap_or_default();
            let line = format!("{:<10} {result:<8} {:>8.1}  {note}", row.step, row.time.as_secs_f64());
            writeln!(f, "{}", line.trim_end())?;
        }
        for step in &self.not_reached {
            writeln!(f, "{step:<10} {:<8}", "not run")?;
        }
        let total: Duration = self.rows.iter().map(|row| row.time).sum();
        let result = if self.failed() { "FAILED" } else { "ok" };
        writeln!(f, "{:<10} {result:<8} {:>8.1}", "all", total.as_secs_f64())
    }
}
