//! What may be in probes and hooks.

use serde_json::Value;

use super::port_name;
use crate::object::{at, items, number, text};
use crate::rules::{one_of, port_number};
use crate::status::Cause;

const NOT_A_HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
const PROBE_HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

/// Checks the probes and hooks of a container; `grace` is what its pod is given to end.
pub(super) fn check_all(
    container: &Value,
    path: &str,
    grace: Option<i64>,
    causes: &mut Vec<Cause>,
) {
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get(kind).filter(|probe| !probe.is_null()) {
            check(probe, kind, &format!("{path}.{kind}"), causes);
        }
    }
    for kind in ["postStart", "preStop"] {
        let Some(hook) = at(container, &["lifecycle", kind]).filter(|hook| !hook.is_null()) else {
            continue;
        };
        let path = format!("{path}.lifecycle.{kind}");
        handler(hook, &HOOK_HANDLERS, &path, causes);
        let seconds = number(hook, &["sleep", "seconds"]);
        if let (Some(seconds), Some(grace)) = (seconds, grace)
            && !(0..=grace).contains(&seconds)
        {
            causes.push(Cause::invalid(
                format!("{path}.sleep"),
                &seconds.into(),
                &format!(
                    "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                ),
            ));
        }
    }
}

/// What is asked or done: exactly one of the handlers, and that one complete.
fn handler(owner: &Value, known: &[&str], path: &str, causes: &mut Vec<Cause>) {
    let handlers: Vec<&str> = known
        .iter()
        .copied()
        .filter(|name| owner.get(*name).is_some_and(|handler| !handler.is_null()))
        .collect();
    match handlers.as_slice() {
        [] => causes.push(Cause::required(path, "must specify a handler type")),
        [_, second, ..] => causes.push(Cause::forbidden(
            format!("{path}.{second}"),
            "may not specify more than 1 handler type",
        )),
        ["exec"] => {
            if items(owner, &["exec", "command"]).is_empty() {
                causes.push(Cause::required(format!("{path}.exec.command"), ""));
            }
        }
        ["sleep"] => {}
        [one] => port(owner, one, path, causes),
    }
    if let Some(request) = owner.get("httpGet").filter(|request| request.is_object()) {
        let path = format!("{path}.httpGet");
        one_of(request, "scheme", &["HTTP", "HTTPS"], &path, causes);
        for header in items(request, &["httpHeaders"]) {
            let name = text(header, &["name"]);
            let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            if name.is_empty() || !name.bytes().all(fits) {
                causes.push(Cause::invalid(
                    format!("{path}.httpHeaders"),
                    &name.into(),
                    NOT_A_HEADER,
                ));
            }
        }
    }
}

fn port(owner: &Value, handler: &str, path: &str, causes: &mut Vec<Cause>) {
    let path = format!("{path}.{handler}.port");
    match at(owner, &[handler, "port"]) {
        Some(Value::String(name)) if handler != "grpc" => {
            for wrong in port_name(name) {
                causes.push(Cause::invalid(path.clone(), &name.as_str().into(), wrong));
            }
        }
        port => port_number(port, &path, causes),
    }
}

fn check(probe: &Value, kind: &str, path: &str, causes: &mut Vec<Cause>) {
    handler(probe, &PROBE_HANDLERS, path, causes);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if let Some(value) = number(probe, &[field]).filter(|value| *value < 0) {
            causes.push(Cause::invalid(
                format!("{path}.{field}"),
                &value.into(),
                "must be greater than or equal to 0",
            ));
        }
    }
    if kind != "readinessProbe"
        && number(probe, &["successThreshold"]).is_some_and(|threshold| threshold > 1)
    {
        causes.push(Cause::invalid(
            format!("{path}.successThreshold"),
            &probe["successThreshold"],
            "must be 1",
        ));
    }
    if let Some(seconds) = number(probe, &["terminationGracePeriodSeconds"]) {
        let wrong = match (kind, seconds) {
            ("readinessProbe", _) => "must not be set for readinessProbes",
            (_, ..=0) => "must be greater than 0",
            _ => return,
        };
        causes.push(Cause::invalid(
            format!("{path}.terminationGracePeriodSeconds"),
            &seconds.into(),
            wrong,
        ));
    }
}
