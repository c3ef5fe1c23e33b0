//! Types whose JSON is not what their protobuf message says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::wire::{Payload, Reader, signed32};
use super::{DEPTH_MAX, PREFIX, ProtobufError, broken, decode_at};

pub(super) fn base64(bytes: &[u8]) -> Value {
    STANDARD.encode(bytes).into()
}

/// The payload of the last field with a number.
fn last(bytes: &[u8], wanted: u32) -> Result<Option<Payload<'_>>, ProtobufError> {
    let mut found = None;
    let mut reader = Reader::new(bytes, "");
    while let Some((number, payload)) = reader.next()? {
        if number == wanted {
            found = Some(payload);
        }
    }
    Ok(found)
}

/// `{string = 1}`.
pub(super) fn quantity(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let text = last(bytes, 1)?.map_or(Ok(""), |payload| payload.text(""))?;
    Ok(if text.is_empty() { "0" } else { text }.into())
}

/// `{type = 1, intVal = 2, strVal = 3}`.
pub(super) fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let text = last(bytes, 1)?.map_or(Ok(0), |payload| payload.varint(""))? == 1;
    Ok(if text {
        last(bytes, 3)?
            .map_or(Ok(""), |payload| payload.text(""))?
            .into()
    } else {
        signed32(last(bytes, 2)?.map_or(Ok(0), |payload| payload.varint(""))?).into()
    })
}

/// `{seconds = 1, nanos = 2}`; the zero time is an empty message and null in JSON.
pub(super) fn time(bytes: &[u8], micro: bool) -> Result<Option<Value>, ProtobufError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let seconds = last(bytes, 1)?
        .map_or(Ok(0), |payload| payload.varint(""))?
        .cast_signed();
    let nanos = signed32(last(bytes, 2)?.map_or(Ok(0), |payload| payload.varint(""))?);
    let time = jiff::Timestamp::new(seconds, if micro { nanos } else { 0 })
        .map_err(|_| broken("time out of range", ""))?;
    let form = if micro {
        "%Y-%m-%dT%H:%M:%S.%6fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    Ok(Some(time.strftime(form).to_string().into()))
}

/// `{duration = 1}` in nanoseconds, as Go prints it.
pub(super) fn duration(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let nanos = last(bytes, 1)?
        .map_or(Ok(0), |payload| payload.varint(""))?
        .cast_signed();
    Ok(go_duration(nanos).into())
}

fn go_duration(nanos: i64) -> String {
    let total = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let fraction = |value: u64, unit: u64, name: &str| {
        let whole = value / unit;
        let digits = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let digits = digits.trim_end_matches('0');
        if unit == 1 || digits.is_empty() {
            format!("{whole}{name}")
        } else {
            format!("{whole}.{digits}{name}")
        }
    };
    let text = match total {
        0 => return "0s".to_owned(),
        1..1_000 => fraction(total, 1, "ns"),
        1_000..1_000_000 => fraction(total, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(total, 1_000_000, "ms"),
        _ => {
            let minutes = total / 60_000_000_000;
            let seconds = fraction(total % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// `{raw = 1}`: JSON, or an envelope again.
pub(super) fn raw(bytes: &[u8], depth: usize) -> Result<Option<Value>, ProtobufError> {
    let Some(payload) = last(bytes, 1)? else {
        return Ok(None);
    };
    let inner = payload.bytes("")?;
    if inner.is_empty() {
        return Ok(None);
    }
    if inner.starts_with(PREFIX) {
        if depth > DEPTH_MAX {
            return Err(broken("messages nested too deep", ""));
        }
        return decode_at(inner, depth + 1).map(Some);
    }
    serde_json::from_slice(inner)
        .map(Some)
        .map_err(|_| broken("embedded object is not JSON", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_go_prints_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (-3_723_000_000_000, "-1h2m3s"),
        ] {
            assert_eq!(go_duration(nanos), text);
        }
    }
}
