//! `OBSERVABILITY_CONFIG`: what queue-proxy is told about logs, metrics and traces, in the field order of Knative's Go type.

use std::time::Duration;

use kinglet_api::config::Observability;
use kinglet_api::go;
use serde::Serialize;

/// The configuration as JSON.
pub(super) fn json(from: &Observability) -> String {
    let metrics = |from: &'_ kinglet_api::config::Metrics| {
        (
            from.protocol.clone(),
            from.endpoint.clone(),
            nanoseconds(from.export_interval),
        )
    };
    let (protocol, endpoint, export_interval) = metrics(&from.metrics);
    let (request_protocol, request_endpoint, request_interval) = metrics(&from.request_metrics);
    let config = ObservabilityConfig {
        tracing: Tracing {
            protocol: &from.tracing.protocol,
            endpoint: &from.tracing.endpoint,
            sampling_rate: from.tracing.sampling_rate,
        },
        metrics: Metrics {
            protocol: &protocol,
            endpoint: &endpoint,
            export_interval,
        },
        runtime: Runtime {
            profiling: if from.runtime_profiling {
                "enabled"
            } else {
                "disabled"
            },
            export_interval: nanoseconds(from.runtime_export_interval),
        },
        request_metrics: Metrics {
            protocol: &request_protocol,
            endpoint: &request_endpoint,
            export_interval: request_interval,
        },
        enable_var_log_collection: from.enable_var_log_collection,
        logging_url_template: &from.revision_url_template,
        request_log_template: &from.request_log_template,
        enable_probe_request_log: from.enable_probe_request_log,
        enable_request_log: from.enable_request_log,
    };
    go::escape_html(&serde_json::to_string(&config).expect("plain fields serialize"))
}

fn nanoseconds(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

#[derive(Serialize)]
struct ObservabilityConfig<'a> {
    tracing: Tracing<'a>,
    metrics: Metrics<'a>,
    runtime: Runtime<'a>,
    #[serde(rename = "requestMetrics")]
    request_metrics: Metrics<'a>,
    #[serde(rename = "enableVarLogCollection", skip_serializing_if = "is_false")]
    enable_var_log_collection: bool,
    #[serde(rename = "loggingURLTemplate", skip_serializing_if = "str::is_empty")]
    logging_url_template: &'a str,
    #[serde(rename = "requestLogTemplate", skip_serializing_if = "str::is_empty")]
    request_log_template: &'a str,
    #[serde(rename = "enableProbeRequestLog", skip_serializing_if = "is_false")]
    enable_probe_request_log: bool,
    #[serde(rename = "enableRequestLog", skip_serializing_if = "is_false")]
    enable_request_log: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tracing<'a> {
    protocol: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    endpoint: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    sampling_rate: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metrics<'a> {
    protocol: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    endpoint: &'a str,
    #[serde(skip_serializing_if = "is_nothing")]
    export_interval: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Runtime<'a> {
    profiling: &'a str,
    #[serde(skip_serializing_if = "is_nothing")]
    export_interval: i64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for this shape"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for this shape"
)]
fn is_nothing(value: &i64) -> bool {
    *value == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for this shape"
)]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_knative_writes() {
        let json = json(&Observability::default());
        let start = r#"{"tracing":{"protocol":"none"},"metrics":{"protocol":"none"},"runtime":{"profiling":"disabled","exportInterval":15000000000},"requestMetrics":{"protocol":"none"},"requestLogTemplate":"{\"httpRequest\": {\"requestMethod\":"#;
        assert!(json.starts_with(start), "{json}");
        assert!(
            json.ends_with(r#"\"traceId\": \"{{.TraceID}}\"}"}"#),
            "{json}"
        );
    }
}
