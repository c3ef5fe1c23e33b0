//! Rules of Sequences and Parallels.
//!
//! Knative says of a bad step or branch only that it is invalid, with a Go value that holds addresses of memory. Here what is
//! wrong is said, at the field that is wrong.

use super::{Judge, delivery, messaging};
use crate::admission::look;
use crate::field::Findings;

impl Judge<'_> {
    pub(super) fn sequence(&self) -> Findings {
        let references = self.references();
        let steps = look::list(self.spec, "steps");
        let mut found = Findings::none();
        if steps.is_empty() {
            found.add(Findings::missing("steps"));
        }
        for (index, step) in steps.iter().enumerate() {
            let mut inner = references.destination(step);
            inner.add(delivery::validate(step, &self.configs.features, references));
            found.add(inner.under_at("steps", index));
        }
        found.add(messaging::template(self.spec));
        found.add(references.optional(self.spec, "reply"));
        found.under("spec")
    }

    pub(super) fn parallel(&self) -> Findings {
        let references = self.references();
        let branches = look::list(self.spec, "branches");
        let mut found = Findings::none();
        if branches.is_empty() {
            found.add(Findings::missing("branches"));
        }
        for (index, branch) in branches.iter().enumerate() {
            let mut inner = references.optional(branch, "filter");
            let subscriber = look::at(branch, "subscriber");
            inner.add(references.destination(subscriber).under("subscriber"));
            inner.add(references.optional(branch, "reply"));
            inner.add(delivery::validate(
                branch,
                &self.configs.features,
                references,
            ));
            found.add(inner.under_at("branches", index));
        }
        found.add(messaging::template(self.spec));
        found.add(references.optional(self.spec, "reply"));
        found.under("spec")
    }
}
