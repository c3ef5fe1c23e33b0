//! What an answer to a probe means (spec/serving.md 6.5): pure.

use super::super::gateways::ProbeAnswer;

/// `Ok` when the gateway serves the Ingress; otherwise what it answered instead.
pub(super) fn verdict(answer: &ProbeAnswer, expected: &str) -> Result<(), String> {
    match answer {
        ProbeAnswer::Status {
            code: 200,
            hash: Some(hash),
        } if hash != expected => Err("it serves another version".to_owned()),
        ProbeAnswer::Status {
            code: code @ (404 | 503),
            ..
        } => Err(format!("it answers with {code}")),
        // Also an answer of something in front of the Revision, such as a login: what it is in front of is in force.
        ProbeAnswer::Status { .. } => Ok(()),
        ProbeAnswer::Unreachable(why) => Err(why.clone()),
    }
}
