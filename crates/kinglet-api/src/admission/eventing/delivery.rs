//! `delivery` (spec/eventing.md 4.17).

use kinglet_events::duration::IsoDuration;
use serde_json::Value;

use super::destination::References;
use crate::admission::look;
use crate::config::Flag;
use crate::config::eventing::Features;
use crate::field::Findings;

/// Judges `parent.delivery` if it is there.
pub(super) fn validate(
    parent: &Value,
    features: &Features,
    references: References<'_>,
) -> Findings {
    let delivery = look::at(parent, "delivery");
    let mut found = references.optional(delivery, "deadLetterSink");
    if let Some(retry) = look::number(delivery, "retry").filter(|retry| *retry < 0) {
        found.add(Findings::invalid(retry, "retry"));
    }
    let timeout_is_on = features.delivery_timeout == Flag::Enabled;
    let retry_after_is_on = features.delivery_retry_after == Flag::Enabled;
    found.add(duration(delivery, "timeout", timeout_is_on, |time| {
        !time.is_zero()
    }));
    found.add(duration(delivery, "backoffDelay", true, |_| true));
    found.add(duration(
        delivery,
        "retryAfterMax",
        retry_after_is_on,
        |time| !time.is_negative(),
    ));
    found.add(word(delivery, "backoffPolicy", &["linear", "exponential"]));
    found.add(word(delivery, "format", &["json", "binary"]));
    found.under("delivery")
}

fn duration(
    delivery: &Value,
    field: &str,
    is_on: bool,
    good: impl Fn(IsoDuration) -> bool,
) -> Findings {
    let Some(text) = look::at(delivery, field).as_str() else {
        return Findings::none();
    };
    if !is_on {
        return Findings::disallowed(field);
    }
    match IsoDuration::parse(text) {
        Ok(time) if good(time) => Findings::none(),
        _ => Findings::invalid(text, field),
    }
}

fn word(delivery: &Value, field: &str, known: &[&str]) -> Findings {
    match look::at(delivery, field).as_str() {
        Some(word) if !known.contains(&word) => Findings::invalid(word, field),
        _ => Findings::none(),
    }
}
