//! What a container's probes do, and how often.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerPort, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kinglet_quantity::pod::{
    PROBE_FAILURES as FAILURES, PROBE_PERIOD as PERIOD, PROBE_SUCCESSES, PROBE_TIMEOUT as TIMEOUT,
};
use url::Url;

/// One attempt of an aggressive probe (spec 6.3.3).
const AGGRESSIVE_TIMEOUT: Duration = Duration::from_millis(100);

/// What a probe decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ProbeType {
    /// Before it has succeeded, the others wait; failing for good restarts the container.
    Startup,
    /// Whether it takes requests.
    Readiness,
    /// Failing for good restarts the container.
    Liveness,
}

impl ProbeType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// A GET request of a probe or hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpGet {
    /// Instead of the pod's address.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) https: bool,
    pub(crate) headers: Vec<(String, String)>,
}

impl HttpGet {
    fn authority(&self, default_host: &str) -> String {
        let host = self.host.as_deref().unwrap_or(default_host);
        let scheme = if self.https { "https" } else { "http" };
        if host.contains(':') && !host.starts_with('[') {
            format!("{scheme}://[{host}]:{}", self.port)
        } else {
            format!("{scheme}://{host}:{}", self.port)
        }
    }

    /// The URL for people.
    pub(crate) fn url(&self, default_host: &str) -> String {
        format!("{}{}", self.authority(default_host), self.path)
    }

    /// Scheme, host and port as a URL that redirects are resolved against.
    pub(crate) fn base(&self, default_host: &str) -> Result<Url, String> {
        let text = self.authority(default_host);
        Url::parse(&text).map_err(|error| format!("{text}: {error}"))
    }
}

/// What one attempt of a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeAction {
    Http(HttpGet),
    Tcp { host: Option<String>, port: u16 },
    Exec(Vec<String>),
    Grpc { port: u16, service: String },
}

/// A probe, ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbeSpec {
    pub(crate) probe_type: ProbeType,
    /// All must succeed.
    pub(crate) actions: Vec<ProbeAction>,
    pub(crate) delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) successes: u32,
    pub(crate) failures: u32,
    /// What the container is given to end when this probe has failed for good, instead of the pod's own time.
    pub(crate) grace: Option<Duration>,
    /// Until the first success, try again in milliseconds instead of periods.
    pub(crate) eager: bool,
    /// Loopback counts as the pod's address, as it does for a queue-proxy inside the pod.
    pub(crate) from_inside: bool,
}

/// All probes of an ordinary container.
pub(crate) fn of(container: &Container) -> Result<Vec<ProbeSpec>, String> {
    let ports = container.ports.as_deref().unwrap_or_default();
    [
        (ProbeType::Startup, &container.startup_probe),
        (ProbeType::Readiness, &container.readiness_probe),
        (ProbeType::Liveness, &container.liveness_probe),
    ]
    .into_iter()
    .filter_map(|(probe_type, probe)| probe.as_ref().map(|probe| one(probe_type, probe, ports)))
    .collect()
}

fn one(probe_type: ProbeType, probe: &Probe, ports: &[ContainerPort]) -> Result<ProbeSpec, String> {
    let action = action_of(probe, ports)?;
    Ok(ProbeSpec {
        probe_type,
        actions: vec![action],
        delay: seconds(probe.initial_delay_seconds).unwrap_or_default(),
        period: seconds(probe.period_seconds).unwrap_or(PERIOD),
        timeout: seconds(probe.timeout_seconds).unwrap_or(TIMEOUT),
        successes: count(probe.success_threshold).unwrap_or(PROBE_SUCCESSES),
        failures: count(probe.failure_threshold).unwrap_or(FAILURES),
        grace: probe
            .termination_grace_period_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
        eager: false,
        from_inside: false,
    })
}

/// The readiness of a pod whose queue-proxy is answered by this node: the actions in its environment, at the pace of
/// its own readiness probe. `None` when there is nothing to probe: then it is ready when its neighbours run.
pub(crate) fn of_queue_proxy(
    queue_proxy: &Container,
    encoded: Option<&str>,
) -> Result<Option<ProbeSpec>, String> {
    let Some(encoded) = encoded.filter(|text| !text.trim().is_empty()) else {
        return Ok(None);
    };
    let parsed = if encoded.trim_start().starts_with('[') {
        serde_json::from_str::<Vec<Probe>>(encoded)
    } else {
        serde_json::from_str::<Probe>(encoded).map(|probe| vec![probe])
    };
    let probes =
        parsed.map_err(|error| format!("SERVING_READINESS_PROBE is not a probe: {error}"))?;
    let actions = probes
        .iter()
        .map(|probe| action_of(probe, &[]))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(first) = probes.first() else {
        return Ok(None);
    };
    let eager = probes
        .iter()
        .all(|probe| probe.period_seconds.unwrap_or(0) == 0);
    let pace = queue_proxy.readiness_probe.as_ref();
    let of_pace = |field: fn(&Probe) -> Option<i32>| pace.and_then(field);
    Ok(Some(ProbeSpec {
        probe_type: ProbeType::Readiness,
        actions,
        delay: seconds(of_pace(|probe| probe.initial_delay_seconds)).unwrap_or_default(),
        period: seconds(of_pace(|probe| probe.period_seconds)).unwrap_or(PERIOD),
        timeout: if eager {
            AGGRESSIVE_TIMEOUT
        } else {
            seconds(first.timeout_seconds).unwrap_or(TIMEOUT)
        },
        successes: probes
            .iter()
            .filter_map(|probe| count(probe.success_threshold))
            .max()
            .unwrap_or(1),
        failures: count(of_pace(|probe| probe.failure_threshold)).unwrap_or(FAILURES),
        grace: None,
        eager,
        from_inside: true,
    }))
}

fn action_of(probe: &Probe, ports: &[ContainerPort]) -> Result<ProbeAction, String> {
    if let Some(http) = &probe.http_get {
        return http_get(http, ports).map(ProbeAction::Http);
    }
    if let Some(tcp) = &probe.tcp_socket {
        return Ok(ProbeAction::Tcp {
            host: named(tcp.host.as_deref()),
            port: port(&tcp.port, ports)?,
        });
    }
    if let Some(exec) = &probe.exec {
        return Ok(ProbeAction::Exec(exec.command.clone().unwrap_or_default()));
    }
    if let Some(grpc) = &probe.grpc {
        let port = u16::try_from(grpc.port)
            .map_err(|_| format!("probe port {} is out of range", grpc.port))?;
        return Ok(ProbeAction::Grpc {
            port,
            service: grpc.service.clone().unwrap_or_default(),
        });
    }
    Err("a probe asks nothing: it needs httpGet, tcpSocket, exec or grpc".to_owned())
}

/// The action of a `httpGet`, which hooks have, too.
pub(crate) fn http_get(http: &HTTPGetAction, ports: &[ContainerPort]) -> Result<HttpGet, String> {
    let path = http.path.as_deref().unwrap_or("/");
    Ok(HttpGet {
        host: named(http.host.as_deref()),
        port: port(&http.port, ports)?,
        path: if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        },
        https: http.scheme.as_deref() == Some("HTTPS"),
        headers: http
            .http_headers
            .iter()
            .flatten()
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect(),
    })
}

fn named(host: Option<&str>) -> Option<String> {
    host.filter(|host| !host.is_empty()).map(str::to_owned)
}

fn port(port: &IntOrString, ports: &[ContainerPort]) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            match ports.iter().find(|port| port.name.as_deref() == Some(name)) {
                Some(port) => port.container_port,
                None => name
                    .parse()
                    .map_err(|_| format!("probe port {name:?} is no port of the container"))?,
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("probe port {number} is out of range"))
}

fn seconds(value: Option<i32>) -> Option<Duration> {
    value
        .and_then(|value| u64::try_from(value).ok())
        .filter(|value| *value > 0)
        .map(Duration::from_secs)
}

fn count(value: Option<i32>) -> Option<u32> {
    value
        .and_then(|value| u32::try_from(value).ok())
        .filter(|value| *value > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(value: serde_json::Value) -> Container {
        serde_json::from_value(value).expect("container")
    }

    #[test]
    fn defaults_and_named_ports() {
        let specs = of(&container(json!({"name": "c", "ports": [{"name": "web", "containerPort": 81}],
            "livenessProbe": {"httpGet": {"port": "web", "path": "ok"}, "periodSeconds": 5, "failureThreshold": 1},
            "startupProbe": {"exec": {"command": ["true"]}}})))
        .expect("specs");
        assert_eq!(specs[0].probe_type, ProbeType::Startup);
        assert_eq!(
            (specs[0].period, specs[0].timeout, specs[0].failures),
            (PERIOD, TIMEOUT, 3)
        );
        let http = ProbeAction::Http(HttpGet {
            host: None,
            port: 81,
            path: "/ok".to_owned(),
            https: false,
            headers: Vec::new(),
        });
        assert_eq!((&specs[1].actions[0], specs[1].failures), (&http, 1));
        assert!(
            of(&container(
                json!({"name": "c", "readinessProbe": {"tcpSocket": {"port": "none"}}})
            ))
            .is_err()
        );
        assert!(of(&container(json!({"name": "c", "readinessProbe": {}}))).is_err());
    }

    #[test]
    fn the_queue_proxys_question() {
        let queue_proxy = container(
            json!({"name": "queue-proxy", "readinessProbe": {"periodSeconds": 7, "failureThreshold": 2, "httpGet": {"port": 8012}}}),
        );
        let spec = of_queue_proxy(
            &queue_proxy,
            Some(r#"{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}"#),
        )
        .expect("spec")
        .expect("asks");
        assert!(spec.eager && spec.from_inside);
        assert_eq!(
            spec.actions,
            vec![ProbeAction::Tcp {
                host: Some("127.0.0.1".to_owned()),
                port: 8080
            }]
        );
        assert_eq!(
            (spec.period, spec.failures, spec.timeout),
            (Duration::from_secs(7), 2, AGGRESSIVE_TIMEOUT)
        );
        let slow = of_queue_proxy(
            &queue_proxy,
            Some(r#"{"httpGet":{"port":1,"path":"/"},"periodSeconds":3,"timeoutSeconds":2}"#),
        )
        .expect("spec")
        .expect("asks");
        assert!(!slow.eager);
        assert_eq!(slow.timeout, Duration::from_secs(2));
        let both = of_queue_proxy(
            &queue_proxy,
            Some(r#"[{"tcpSocket":{"port":1}},{"tcpSocket":{"port":2}}]"#),
        )
        .expect("spec")
        .expect("asks");
        assert_eq!(both.actions.len(), 2);
        assert_eq!(of_queue_proxy(&queue_proxy, None), Ok(None));
        assert!(of_queue_proxy(&queue_proxy, Some("{")).is_err());
    }
}
