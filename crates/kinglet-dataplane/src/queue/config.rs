//! A queue-proxy's settings, from the environment that Knative's controller gives it (spec/serving.md 4.3.5, spec/cluster.md 3.5).

use std::str::FromStr;
use std::time::Duration;

use kinglet_decide::feed::Key;
use serde::Deserialize;

use super::probes::ReadinessProbe;

/// What a queue-proxy goes by.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueConfig {
    /// The Revision.
    pub revision: Key,
    /// Name of its Configuration.
    pub configuration: String,
    /// The pod's name.
    pub pod: String,
    /// `QUEUE_SERVING_PORT`.
    pub serving_port: u16,
    /// `USER_PORT`.
    pub user_port: u16,
    /// `CONTAINER_CONCURRENCY`; 0 means no limit.
    pub container_concurrency: u32,
    /// `REVISION_TIMEOUT_SECONDS`.
    pub timeout: Duration,
    /// `REVISION_RESPONSE_START_TIMEOUT_SECONDS`; zero means none.
    pub response_start_timeout: Duration,
    /// `REVISION_IDLE_TIMEOUT_SECONDS`; zero means none.
    pub idle_timeout: Duration,
    /// `SERVING_READINESS_PROBE`; empty: ready at once.
    pub probes: Vec<ReadinessProbe>,
    /// `ENABLE_HTTP2_AUTO_DETECTION`: HTTP probes try HTTP/2 first.
    pub detect_http2: bool,
    /// `OBSERVABILITY_CONFIG`: whether and how requests are logged.
    pub request_log: RequestLog,
    /// `OBSERVABILITY_CONFIG`: who asks for the metrics of requests.
    pub request_metrics: MetricsProtocol,
    /// `OBSERVABILITY_CONFIG`: whether the profiler's port is open.
    pub profiling: bool,
    /// `SERVING_LOGGING_LEVEL`.
    pub logging_level: String,
}

/// How metrics leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricsProtocol {
    /// They do not.
    #[default]
    None,
    /// Prometheus asks for them.
    Prometheus,
    /// One that is not served here: OpenTelemetry's `grpc` and `http/protobuf`.
    #[serde(untagged)]
    Other(String),
}

/// What of `OBSERVABILITY_CONFIG` is acted on (spec/cluster.md 3.5). The rest of it is exporters, which there are none of.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Observability {
    #[serde(flatten)]
    request_log: RequestLog,
    request_metrics: RequestMetrics,
    runtime: Runtime,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct RequestMetrics {
    protocol: MetricsProtocol,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Runtime {
    profiling: String,
}

/// The log of requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestLog {
    /// A line on standard output for each request.
    #[serde(rename = "enableRequestLog")]
    pub enabled: bool,
    /// Go's text/template.
    #[serde(rename = "requestLogTemplate")]
    pub template: String,
    /// For probes, too.
    #[serde(rename = "enableProbeRequestLog")]
    pub probes: bool,
}

/// An environment that a queue-proxy cannot start with: one sentence for each variable that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct EnvironmentError(Vec<String>);

/// Reads variables and gathers what is wrong with them.
struct Reader<R> {
    read: R,
    wrong: Vec<String>,
}

impl<R: Fn(&str) -> Option<String>> Reader<R> {
    /// Must be set, and may be empty.
    fn required(&mut self, name: &str) -> String {
        (self.read)(name).unwrap_or_else(|| {
            self.wrong.push(format!(
                "environment variable {name} is not set, and a queue-proxy needs it"
            ));
            String::new()
        })
    }

    fn number<T: FromStr + Default>(&mut self, name: &str, text: &str, most: &str) -> T {
        text.trim().parse().unwrap_or_else(|_| {
            self.wrong.push(format!(
                "environment variable {name} is \"{text}\", and must be a whole number from 0 to {most}"
            ));
            T::default()
        })
    }

    fn required_number<T: FromStr + Default>(&mut self, name: &str, most: &str) -> T {
        match (self.read)(name) {
            Some(text) => self.number(name, &text, most),
            None => {
                self.required(name);
                T::default()
            }
        }
    }

    fn seconds(&mut self, name: &str) -> Duration {
        let text = (self.read)(name).filter(|text| !text.is_empty());
        let seconds = text.map_or(0, |text| self.number::<u32>(name, &text, "4294967295"));
        Duration::from_secs(seconds.into())
    }

    fn flag(&mut self, name: &str) -> bool {
        match (self.read)(name).as_deref() {
            None | Some("" | "false") => false,
            Some("true") => true,
            Some(other) => {
                self.wrong.push(format!(
                    "environment variable {name} is \"{other}\", and must be true or false"
                ));
                false
            }
        }
    }

    fn observability(&mut self) -> Observability {
        const NAME: &str = "OBSERVABILITY_CONFIG";
        let text = (self.read)(NAME).filter(|text| !text.is_empty());
        let read = text.map_or(Ok(Observability::default()), |text| {
            serde_json::from_str(&text)
        });
        read.unwrap_or_else(|error| {
            self.wrong.push(format!(
                "environment variable {NAME} is no JSON that is understood: {error}"
            ));
            Observability::default()
        })
    }

    fn probes(&mut self) -> Vec<ReadinessProbe> {
        const NAME: &str = "SERVING_READINESS_PROBE";
        let many = self.flag("ENABLE_MULTI_CONTAINER_PROBES");
        let Some(text) = (self.read)(NAME).filter(|text| !text.is_empty()) else {
            return Vec::new();
        };
        ReadinessProbe::parse(&text, many).unwrap_or_else(|reason| {
            self.wrong
                .push(format!("environment variable {NAME}: {reason}"));
            Vec::new()
        })
    }
}

impl QueueConfig {
    /// Reads all of it, and names everything that is wrong at once.
    pub fn from_environment(
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, EnvironmentError> {
        let mut reader = Reader {
            read,
            wrong: Vec::new(),
        };
        // Stock queue-proxies refuse to start without these as well, though nothing here goes by them.
        for unused in ["SERVING_LOGGING_CONFIG", "SERVING_POD_IP"] {
            reader.required(unused);
        }
        reader.required_number::<u16>("QUEUE_SERVING_TLS_PORT", "65535");
        let observability = reader.observability();
        let config = Self {
            container_concurrency: reader.required_number("CONTAINER_CONCURRENCY", "4294967295"),
            serving_port: reader.required_number("QUEUE_SERVING_PORT", "65535"),
            user_port: reader.required_number("USER_PORT", "65535"),
            timeout: Duration::from_secs(u64::from(
                reader.required_number::<u32>("REVISION_TIMEOUT_SECONDS", "4294967295"),
            )),
            response_start_timeout: reader.seconds("REVISION_RESPONSE_START_TIMEOUT_SECONDS"),
            idle_timeout: reader.seconds("REVISION_IDLE_TIMEOUT_SECONDS"),
            revision: Key::new(
                reader.required("SERVING_NAMESPACE"),
                reader.required("SERVING_REVISION"),
            ),
            configuration: reader.required("SERVING_CONFIGURATION"),
            pod: reader.required("SERVING_POD"),
            probes: reader.probes(),
            request_log: observability.request_log,
            request_metrics: observability.request_metrics.protocol,
            profiling: observability.runtime.profiling == "enabled",
            detect_http2: reader.flag("ENABLE_HTTP2_AUTO_DETECTION"),
            logging_level: reader.required("SERVING_LOGGING_LEVEL"),
        };
        match reader.wrong.is_empty() {
            true => Ok(config),
            false => Err(EnvironmentError(reader.wrong)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn stock() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            ("SERVING_NAMESPACE", "default"),
            ("SERVING_SERVICE", "hello"),
            ("SERVING_CONFIGURATION", "hello"),
            ("SERVING_REVISION", "hello-00001"),
            ("QUEUE_SERVING_PORT", "8012"),
            ("QUEUE_SERVING_TLS_PORT", "8112"),
            ("CONTAINER_CONCURRENCY", "10"),
            ("REVISION_TIMEOUT_SECONDS", "300"),
            ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "0"),
            ("REVISION_IDLE_TIMEOUT_SECONDS", ""),
            ("SERVING_POD", "hello-00001-deployment-x"),
            ("SERVING_POD_IP", "10.0.0.1"),
            ("SERVING_LOGGING_CONFIG", ""),
            ("SERVING_LOGGING_LEVEL", ""),
            ("USER_PORT", "8080"),
            (
                "SERVING_READINESS_PROBE",
                r#"{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}"#,
            ),
            ("ENABLE_MULTI_CONTAINER_PROBES", "false"),
        ])
    }

    fn read(with: &[(&'static str, Option<&'static str>)]) -> Result<QueueConfig, String> {
        let mut variables = stock();
        for (name, value) in with {
            match value {
                Some(value) => variables.insert(name, value),
                None => variables.remove(name),
            };
        }
        QueueConfig::from_environment(|name| variables.get(name).map(|value| (*value).to_owned()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_controller_sets_is_read() {
        let config = read(&[]).expect("stock");
        assert_eq!(config.revision, Key::new("default", "hello-00001"));
        assert_eq!(config.container_concurrency, 10);
        assert_eq!(config.timeout, Duration::from_secs(300));
        assert_eq!(config.idle_timeout, Duration::ZERO);
        assert_eq!((config.serving_port, config.user_port), (8012, 8080));
        assert_eq!(config.probes.len(), 1);
        assert_eq!(
            read(&[("SERVING_READINESS_PROBE", Some(""))])
                .expect("none")
                .probes,
            []
        );
        let many =
            r#"[{"tcpSocket":{"port":1}},{"grpc":{"port":2}},{"httpGet":{"port":3,"path":"/a"}}]"#;
        let config = read(&[
            ("ENABLE_MULTI_CONTAINER_PROBES", Some("true")),
            ("SERVING_READINESS_PROBE", Some(many)),
        ]);
        assert_eq!(config.expect("three").probes.len(), 3);
    }

    #[test]
    fn observability_is_read_as_the_controller_writes_it() {
        let stock = r#"{"tracing":{"protocol":"none"},"metrics":{"protocol":"none"},"runtime":{"profiling":"disabled","exportInterval":15000000000},"requestMetrics":{"protocol":"none"},"requestLogTemplate":"{{.Request.Method}}"}"#;
        let log =
            |text| read(&[("OBSERVABILITY_CONFIG", Some(text))]).map(|config| config.request_log);
        assert!(!log(stock).expect("stock").enabled);
        let metrics = |text| {
            let config = read(&[("OBSERVABILITY_CONFIG", Some(text))]).expect("understood");
            (config.request_metrics, config.profiling)
        };
        assert_eq!(metrics(stock), (MetricsProtocol::None, false));
        let on =
            r#"{"runtime":{"profiling":"enabled"},"requestMetrics":{"protocol":"prometheus"}}"#;
        assert_eq!(metrics(on), (MetricsProtocol::Prometheus, true));
        let other = r#"{"requestMetrics":{"protocol":"http/protobuf","endpoint":"x"}}"#;
        let protobuf = MetricsProtocol::Other("http/protobuf".to_owned());
        assert_eq!(metrics(other), (protobuf, false));
        let on = log(
            r#"{"enableRequestLog":true,"requestLogTemplate":"x","enableProbeRequestLog":true}"#,
        );
        let expected = RequestLog {
            enabled: true,
            template: "x".to_owned(),
            probes: true,
        };
        assert_eq!(on, Ok(expected));
        assert!(log("{").is_err_and(|error| error.contains("OBSERVABILITY_CONFIG")));
    }

    #[test]
    fn each_required_variable_is_named_when_it_is_missing() {
        for name in [
            "CONTAINER_CONCURRENCY",
            "QUEUE_SERVING_PORT",
            "QUEUE_SERVING_TLS_PORT",
            "USER_PORT",
            "REVISION_TIMEOUT_SECONDS",
            "SERVING_LOGGING_CONFIG",
            "SERVING_LOGGING_LEVEL",
            "SERVING_NAMESPACE",
            "SERVING_CONFIGURATION",
            "SERVING_REVISION",
            "SERVING_POD",
            "SERVING_POD_IP",
        ] {
            assert_eq!(
                read(&[(name, None)]),
                Err(format!(
                    "environment variable {name} is not set, and a queue-proxy needs it"
                ))
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named_all_at_once() {
        let error = read(&[
            ("USER_PORT", Some("http")),
            ("CONTAINER_CONCURRENCY", Some("-1")),
            ("ENABLE_HTTP2_AUTO_DETECTION", Some("maybe")),
            ("SERVING_READINESS_PROBE", Some("{\"exec\":{}}")),
        ])
        .expect_err("four mistakes");
        for name in [
            "USER_PORT is \"http\"",
            "CONTAINER_CONCURRENCY is \"-1\"",
            "ENABLE_HTTP2_AUTO_DETECTION is \"maybe\"",
            "SERVING_READINESS_PROBE: ",
        ] {
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}
