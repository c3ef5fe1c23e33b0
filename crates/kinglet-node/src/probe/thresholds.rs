//! Counting results against thresholds.

/// An outcome that differs from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
}

/// Results so far.
#[derive(Clone, Debug)]
pub(crate) struct Thresholds {
    successes_needed: u32,
    failures_needed: u32,
    streak: u32,
    last_result: Option<bool>,
    outcome: Option<Outcome>,
}

impl Thresholds {
    pub(crate) fn new(successes_needed: u32, failures_needed: u32) -> Self {
        Self {
            successes_needed: successes_needed.max(1),
            failures_needed: failures_needed.max(1),
            streak: 0,
            last_result: None,
            outcome: None,
        }
    }

    /// Counts one result; gives an outcome when it is new.
    pub(crate) fn count(&mut self, good: bool) -> Option<Outcome> {
        self.streak = if self.last_result == Some(good) {
            self.streak.saturating_add(1)
        } else {
            1
        };
        self.last_result = Some(good);
        let (needed, outcome) = if good {
            (self.successes_needed, Outcome::Succeeded)
        } else {
            (self.failures_needed, Outcome::Failed)
        };
        if self.streak < needed || self.outcome == Some(outcome) {
            return None;
        }
        self.outcome = Some(outcome);
        Some(outcome)
    }

    /// Whether it has passed and not failed since.
    pub(crate) fn passed(&self) -> bool {
        self.outcome == Some(Outcome::Succeeded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_in_a_row_and_verdicts_come_once() {
        let mut thresholds = Thresholds::new(2, 3);
        let answers = [
            true, false, true, true, true, false, false, true, false, false, false, false, true,
            true,
        ];
        let verdicts: Vec<_> = answers.iter().map(|good| thresholds.count(*good)).collect();
        let mut expected = [None; 14];
        (expected[3], expected[10], expected[13]) = (
            Some(Outcome::Succeeded),
            Some(Outcome::Failed),
            Some(Outcome::Succeeded),
        );
        assert_eq!(verdicts, expected);
        assert!(thresholds.passed());
    }
}
