//! `spec.delivery` as it is written, and what admission refuses in it (spec/eventing.md 4.17).

use serde::{Deserialize, Serialize};

use super::retry::{Backoff, BackoffPolicy, Delivery};
use crate::binding::Format;
use crate::duration::{InvalidDuration, IsoDuration};
use crate::filter::Refusal;

/// A DeliverySpec without its dead letter sink, which is a Destination and resolved elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeliverySpec {
    /// Attempts after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<i32>,
    /// The longest that one attempt takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// `linear` or `exponential`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_policy: Option<String>,
    /// What the policy multiplies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_delay: Option<String>,
    /// The longest that a header `Retry-After` is followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_max: Option<String>,
    /// `json` or `binary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// Flags of `config-features` that allow fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryFlags {
    /// `delivery-timeout`
    pub timeout: bool,
    /// `delivery-retryafter`
    pub retry_after: bool,
}

impl Default for DeliveryFlags {
    fn default() -> Self {
        Self {
            timeout: true,
            retry_after: false,
        }
    }
}

/// A field of a DeliverySpec that cannot be read. Admission refuses those, so only objects from before see it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("delivery.{field} {value:?} {reason}")]
pub struct InvalidDelivery {
    /// The field.
    pub field: &'static str,
    /// What it holds.
    pub value: String,
    /// What it should.
    pub reason: String,
}

impl DeliverySpec {
    /// Checks the fields; paths begin with `delivery`.
    pub fn validate(&self, flags: DeliveryFlags) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let mut refuse = |field: &str, message: String, details: String| {
            refusals.push(Refusal {
                message,
                path: format!("delivery.{field}"),
                details,
            });
        };
        let invalid = |value: &dyn std::fmt::Display| format!("invalid value: {value}");
        if let Some(retry) = self.retry.filter(|retry| *retry < 0) {
            refuse("retry", invalid(&retry), String::new());
        }
        if let Some(timeout) = &self.timeout {
            if !flags.timeout {
                refuse("timeout", DISALLOWED.into(), String::new());
            } else if IsoDuration::parse(timeout).map_or(true, IsoDuration::is_zero) {
                refuse("timeout", invalid(timeout), String::new());
            }
        }
        if let Some(policy) = &self.backoff_policy
            && BackoffPolicy::parse(policy).is_none()
        {
            refuse("backoffPolicy", invalid(policy), String::new());
        }
        if let Some(delay) = &self.backoff_delay
            && IsoDuration::parse(delay).is_err()
        {
            refuse("backoffDelay", invalid(delay), String::new());
        }
        if let Some(longest) = &self.retry_after_max {
            if !flags.retry_after {
                refuse("retryAfterMax", DISALLOWED.into(), String::new());
            } else if IsoDuration::parse(longest).map_or(true, IsoDuration::is_negative) {
                refuse("retryAfterMax", invalid(longest), String::new());
            }
        }
        if let Some(format) = &self.format
            && format_of(format).is_none()
        {
            refuse("format", invalid(format), String::new());
        }
        refusals
    }

    /// Reads the fields.
    pub fn read(&self) -> Result<Delivery, InvalidDelivery> {
        let backoff = match (&self.backoff_policy, &self.backoff_delay) {
            (Some(policy), Some(delay)) => Some(Backoff {
                policy: BackoffPolicy::parse(policy).ok_or_else(|| InvalidDelivery {
                    field: "backoffPolicy",
                    value: policy.clone(),
                    reason: "is linear or exponential".to_owned(),
                })?,
                delay: duration("backoffDelay", delay)?.to_wait(),
            }),
            // One alone waits no time.
            _ => None,
        };
        let optional = |field, value: &Option<String>| {
            let read = value.as_deref().map(|value| duration(field, value));
            read.transpose()
        };
        let format = match &self.format {
            None => Format::default(),
            Some(format) => format_of(format).ok_or_else(|| InvalidDelivery {
                field: "format",
                value: format.clone(),
                reason: "is json or binary".to_owned(),
            })?,
        };
        Ok(Delivery {
            retries: u32::try_from(self.retry.unwrap_or_default()).unwrap_or_default(),
            backoff,
            timeout: optional("timeout", &self.timeout)?
                .map(IsoDuration::to_wait)
                .filter(|timeout| !timeout.is_zero()),
            retry_after_max: optional("retryAfterMax", &self.retry_after_max)?
                .map(IsoDuration::to_wait)
                .filter(|longest| !longest.is_zero()),
            format,
        })
    }
}

const DISALLOWED: &str = "must not set the field(s)";

fn duration(field: &'static str, value: &str) -> Result<IsoDuration, InvalidDelivery> {
    IsoDuration::parse(value).map_err(|error: InvalidDuration| InvalidDelivery {
        field,
        value: value.to_owned(),
        reason: error.to_string(),
    })
}

fn format_of(text: &str) -> Option<Format> {
    match text {
        "json" => Some(Format::Json),
        "binary" => Some(Format::Binary),
        _ => None,
    }
}
