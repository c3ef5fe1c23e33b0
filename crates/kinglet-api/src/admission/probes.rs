//! Rules about probes (spec/serving.md 2.5).

use serde_json::Value;

use crate::field::Findings;
use crate::go;

use super::look;

const HANDLERS: [&str; 4] = ["exec", "grpc", "httpGet", "tcpSocket"];
const INT_MAX: i64 = i32::MAX as i64;

/// A readiness probe of the serving container, whose port has this name.
pub(super) fn readiness(probe: &Value, port_name: &str) -> Findings {
    if probe.is_null() {
        return Findings::none();
    }
    let mut found = handler(probe, port_name);
    found.add(readiness_numbers(probe));
    found
}

/// A readiness probe of a sidecar.
pub(super) fn sidecar_readiness(probe: &Value) -> Findings {
    let mut found = sidecar(probe);
    found.add(readiness_numbers(probe));
    found
}

/// A probe where none may be: its handler counts as the probe itself, each number is named.
pub(super) fn none_of(probe: &Value) -> Findings {
    let mut found = Findings::none();
    for field in look::fields(probe)
        .filter(|field| look::has(probe, field) && look::number(probe, field) != Some(0))
    {
        found.add(Findings::disallowed(if HANDLERS.contains(&field) {
            ""
        } else {
            field
        }));
    }
    found
}

/// Any probe of a sidecar: it must say which port.
pub(super) fn sidecar(probe: &Value) -> Findings {
    let mut found = exactly_one(probe);
    for handler in ["httpGet", "tcpSocket"] {
        let port = look::at(look::at(probe, handler), "port");
        if look::has(probe, handler)
            && (port.is_null() || port.as_i64() == Some(0) || port.as_str() == Some(""))
        {
            let wrong = Findings::invalid(
                look::number(look::at(probe, handler), "port").unwrap_or_default(),
                "port",
            );
            found.add(wrong.details("Probe port must be specified").under(handler));
        }
    }
    found
}

/// Any probe of the serving container: one way to ask, and a port by its own name.
pub(super) fn handler(probe: &Value, port_name: &str) -> Findings {
    if probe.is_null() {
        return Findings::none();
    }
    let mut found = exactly_one(probe);
    for handler in ["httpGet", "tcpSocket"] {
        let port = look::text(look::at(probe, handler), "port");
        if !port.is_empty() && port != port_name {
            found.add(
                Findings::invalid(port, "port")
                    .details("Probe port must match container port")
                    .under(handler),
            );
        }
    }
    found
}

fn exactly_one(probe: &Value) -> Findings {
    let mut found = Findings::none();
    if look::has(probe, "terminationGracePeriodSeconds")
        && look::number(probe, "terminationGracePeriodSeconds").is_none()
    {
        found.add(Findings::disallowed("terminationGracePeriodSeconds"));
    }
    let given: Vec<&str> = HANDLERS
        .into_iter()
        .filter(|handler| look::has(probe, handler))
        .collect();
    found.add(match given.as_slice() {
        [] => Findings::missing_one_of(&HANDLERS),
        [_] => Findings::none(),
        several => {
            let named: Vec<&str> = several
                .iter()
                .map(|handler| if *handler == "grpc" { "gRPC" } else { handler })
                .collect();
            Findings::several_of(&named)
        }
    });
    found
}

fn readiness_numbers(probe: &Value) -> Findings {
    let number = |field: &str| look::number(probe, field).unwrap_or_default();
    let mut found = Findings::none();
    let mut at_least = |field: &str, least: i64| {
        let value = number(field);
        if value < least {
            found.add(Findings::out_of_bounds(value, least, INT_MAX, field));
        }
    };
    at_least("periodSeconds", 0);
    at_least("initialDelaySeconds", 0);
    at_least("successThreshold", 1);
    if number("periodSeconds") != 0 {
        at_least("failureThreshold", 1);
        at_least("timeoutSeconds", 1);
        return found;
    }
    // Probed as fast as it goes: nothing to count or wait for.
    for field in ["failureThreshold", "timeoutSeconds"] {
        if number(field) != 0 {
            found.add(Findings::error(
                format!(
                    "{} is disallowed when periodSeconds is zero",
                    unquoted(field)
                ),
                field,
            ));
        }
    }
    found
}

fn unquoted(field: &str) -> String {
    go::quote(field).trim_matches('"').to_owned()
}
