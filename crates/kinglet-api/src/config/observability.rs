//! `config-observability`: logs, metrics and traces.

use std::time::Duration;

use crate::go::{self, GoDuration};
use crate::template::Template;

use super::{Data, read};

/// Template of a request log line where none is configured.
pub const REQUEST_LOG_TEMPLATE: &str = r#"{"httpRequest": {"requestMethod": "{{.Request.Method}}", "requestUrl": "{{js .Request.RequestURI}}", "requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "responseSize": "{{.Response.Size}}", "userAgent": "{{js .Request.UserAgent}}", "remoteIp": "{{js .Request.RemoteAddr}}", "serverIp": "{{.Revision.PodIP}}", "referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", "protocol": "{{.Request.Proto}}"}, "traceId": "{{.TraceID}}"}"#;

/// Where one kind of metrics goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// `none`, `prometheus`, `grpc` or `http/protobuf`.
    pub protocol: String,
    /// URL, or listen address.
    pub endpoint: String,
    /// Between exports; zero means the exporter's own.
    pub export_interval: Duration,
}

/// Where traces go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracing {
    /// `none`, `stdout`, `grpc` or `http/protobuf`.
    pub protocol: String,
    /// URL.
    pub endpoint: String,
    /// Share of traces kept, 0 to 1.
    pub sampling_rate: f64,
}

/// `config-observability`.
#[derive(Clone, Debug, PartialEq)]
pub struct Observability {
    /// Whether the container's log directory is collected.
    pub enable_var_log_collection: bool,
    /// Becomes `status.logUrl`.
    pub revision_url_template: String,
    /// Template of a request log line.
    pub request_log_template: String,
    /// Whether requests are logged.
    pub enable_request_log: bool,
    /// Whether probes are logged.
    pub enable_probe_request_log: bool,
    /// Our own metrics.
    pub metrics: Metrics,
    /// Metrics of requests.
    pub request_metrics: Metrics,
    /// Traces.
    pub tracing: Tracing,
    /// Whether pprof listens.
    pub runtime_profiling: bool,
    /// Between exports of run-time metrics.
    pub runtime_export_interval: Duration,
}

impl Default for Observability {
    fn default() -> Self {
        Self::parse(&Data::new()).expect("the defaults are valid")
    }
}

impl Observability {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        let tracing = tracing(data)?;
        let metrics_own = metrics(data, "")?;
        let runtime_profiling = match read::text(data, &["runtime-profiling"]) {
            None | Some("" | "disabled") => false,
            Some("enabled") => true,
            Some(other) => return Err(format!("unsupported profile setting {}", go::quote(other))),
        };
        let runtime_export_interval = read::duration(
            data,
            &["runtime-export-interval"],
            GoDuration::from_secs(15),
        )?;
        let request_metrics = metrics(data, "request-")?;
        let parsed = Self {
            enable_var_log_collection: read::boolean(
                data,
                &["logging.enable-var-log-collection"],
                false,
            )?,
            revision_url_template: data
                .get("logging.revision-url-template")
                .cloned()
                .unwrap_or_default(),
            request_log_template: data
                .get("logging.request-log-template")
                .map_or_else(|| REQUEST_LOG_TEMPLATE.to_owned(), Clone::clone),
            enable_request_log: read::boolean(data, &["logging.enable-request-log"], false)?,
            enable_probe_request_log: read::boolean(
                data,
                &["logging.enable-probe-request-log"],
                false,
            )?,
            metrics: metrics_own,
            request_metrics,
            tracing,
            runtime_profiling,
            runtime_export_interval: runtime_export_interval.to_std(),
        };
        if parsed.request_log_template.is_empty() {
            if parsed.enable_request_log {
                return Err("logging.request-log-template must not be empty while logging.enable-request-log is true".into());
            }
        } else {
            Template::parse("requestLog", &parsed.request_log_template)?;
        }
        Ok(parsed)
    }
}

fn metrics(data: &Data, prefix: &str) -> Result<Metrics, String> {
    let key = |name: &str| format!("{prefix}metrics-{name}");
    let protocol = read::text(data, &[&key("protocol")])
        .filter(|p| !p.is_empty())
        .unwrap_or("none")
        .to_owned();
    let endpoint = read::text(data, &[&key("endpoint")])
        .unwrap_or_default()
        .to_owned();
    let interval = read::duration(data, &[&key("export-interval")], GoDuration(0))?;
    if interval.0 < 0 {
        return Err(format!(
            "export interval {interval} should be greater than zero"
        ));
    }
    let quoted = go::quote(&protocol);
    match (protocol.as_str(), endpoint.is_empty()) {
        ("grpc" | "http/protobuf", true) => {
            Err(format!("endpoint should be set when protocol is {quoted}"))
        }
        ("none", false) => Err(format!(
            "endpoint should not be set when protocol is {quoted}"
        )),
        ("none" | "prometheus" | "grpc" | "http/protobuf", _) => Ok(Metrics {
            protocol,
            endpoint,
            export_interval: interval.to_std(),
        }),
        _ => Err(format!("unsupported protocol {quoted}")),
    }
}

fn tracing(data: &Data) -> Result<Tracing, String> {
    let protocol = read::text(data, &["tracing-protocol"])
        .filter(|p| !p.is_empty())
        .unwrap_or("none")
        .to_owned();
    let endpoint = read::text(data, &["tracing-endpoint"])
        .unwrap_or_default()
        .to_owned();
    let sampling_rate = read::float(data, &["tracing-sampling-rate"], 0.0)?;
    let quoted = go::quote(&protocol);
    match (protocol.as_str(), endpoint.is_empty()) {
        ("grpc" | "http/protobuf", true) => {
            return Err(format!("endpoint should be set for protocol {quoted}"));
        }
        ("none", false) => return Err(format!("endpoint should not be set for protocol {quoted}")),
        ("none" | "stdout" | "grpc" | "http/protobuf", _) => {}
        _ => return Err(format!("unsupported protocol {quoted}")),
    }
    if sampling_rate < 0.0 {
        return Err(format!(
            "sampling rate {sampling_rate:.6} should be greater or equal to zero"
        ));
    }
    if sampling_rate > 1.0 {
        return Err(format!(
            "sampling rate {sampling_rate:.6} should be less than or equal to one"
        ));
    }
    Ok(Tracing {
        protocol,
        endpoint,
        sampling_rate,
    })
}
