//! How often an event may pass a Broker's ingress (spec/eventing.md 7.3): every reply comes back with what is left.

use jiff::Timestamp;

use crate::event::{Event, ExtensionName, InvalidAttribute, Value, format_timestamp};

/// Extension `knativebrokerttl`: passes that are left.
pub static TTL: ExtensionName = ExtensionName::from_static("ce-knativebrokerttl");
/// Extension `knativearrivaltime`: when the event came to the Broker.
pub static ARRIVAL_TIME: ExtensionName = ExtensionName::from_static("ce-knativearrivaltime");
/// Passes of an event without the extension (`MAX_TTL`).
pub const TTL_DEFAULT: i32 = 255;

/// The event has passed too often.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TtlExhausted {
    /// None are left: 400.
    #[error(
        "the event has passed this Broker too often (knativebrokerttl is {0}): a Trigger replies with an event that it matches itself"
    )]
    Exhausted(i32),
    /// There is no room for the extensions.
    #[error("setting the Broker's extensions: {0}")]
    NoRoom(#[from] InvalidAttribute),
}

/// Passes that are left, if the extension is a number.
pub fn remaining_ttl(event: &Event) -> Option<i32> {
    match event.extension(TTL.as_str())? {
        Value::Integer(number) => Some(number),
        Value::Boolean(_) => None,
        Value::Text(text) => {
            let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
            crate::binding::integer(number)
        }
    }
}

/// What the ingress does with an event: takes one pass off, sets the default where there is no number, and writes down
/// when it came.
pub fn arrive(event: &mut Event, ttl_default: i32, now: Timestamp) -> Result<(), TtlExhausted> {
    let ttl = match remaining_ttl(event) {
        None => ttl_default,
        Some(left) if left <= 1 => return Err(TtlExhausted::Exhausted(left)),
        Some(left) => left - 1,
    };
    event.set_extension(TTL.clone(), Value::Integer(ttl))?;
    event.set_extension(ARRIVAL_TIME.clone(), format_timestamp(now).as_str().into())?;
    Ok(())
}
