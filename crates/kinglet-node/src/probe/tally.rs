//! Counting answers against thresholds.

/// A verdict that differs from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
}

/// Answers so far.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    successes_needed: u32,
    failures_needed: u32,
    streak: u32,
    last_answer: Option<bool>,
    verdict: Option<Verdict>,
}

impl Tally {
    pub(crate) fn new(successes_needed: u32, failures_needed: u32) -> Self {
        Self {
            successes_needed: successes_needed.max(1),
            failures_needed: failures_needed.max(1),
            streak: 0,
            last_answer: None,
            verdict: None,
        }
    }

    /// Counts one answer; gives a verdict when it is new.
    pub(crate) fn count(&mut self, good: bool) -> Option<Verdict> {
        self.streak = if self.last_answer == Some(good) {
            self.streak.saturating_add(1)
        } else {
            1
        };
        self.last_answer = Some(good);
        let (needed, verdict) = if good {
            (self.successes_needed, Verdict::Passed)
        } else {
            (self.failures_needed, Verdict::Failed)
        };
        if self.streak < needed || self.verdict == Some(verdict) {
            return None;
        }
        self.verdict = Some(verdict);
        Some(verdict)
    }

    /// Whether it has passed and not failed since.
    pub(crate) fn passed(&self) -> bool {
        self.verdict == Some(Verdict::Passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_in_a_row_and_verdicts_come_once() {
        let mut tally = Tally::new(2, 3);
        let answers = [
            true, false, true, true, true, false, false, true, false, false, false, false, true,
            true,
        ];
        let verdicts: Vec<_> = answers.iter().map(|good| tally.count(*good)).collect();
        let mut expected = [None; 14];
        (expected[3], expected[10], expected[13]) = (
            Some(Verdict::Passed),
            Some(Verdict::Failed),
            Some(Verdict::Passed),
        );
        assert_eq!(verdicts, expected);
        assert!(tally.passed());
    }
}
