//! What an activator and a queue-proxy measure for Prometheus (spec/serving.md 8.2), and the port of Go's profiler.
//!
//! Always: nothing is measured until somebody may ask for it ([`Handle::serve_metrics`]); the number of series is bounded
//! by statuses, methods and the Revisions that are known.

mod prometheus;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use kinglet_decide::feed::{Key, Stat};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admin;
use crate::plane::{Handle, Plane};
use crate::role::Role;
use prometheus::{Histogram, Page};

/// Prometheus' text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// Methods that have a series of their own; every other one shares OpenTelemetry's `_OTHER`.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// An activator's connection to its autoscaler.
#[derive(Clone, Debug)]
pub struct StatConnection {
    pub(crate) connected: watch::Receiver<bool>,
    pub(crate) errors: Arc<AtomicU64>,
}

/// What a component's page says beside its requests.
#[derive(Clone, Debug, Default)]
pub struct MetricsOptions {
    /// Who it is: `service_name`, `k8s_pod_name` and the like, shown as `target_info`.
    pub resource: Vec<(&'static str, String)>,
    /// An activator's.
    pub autoscaler: Option<StatConnection>,
}

/// What has been measured.
#[derive(Default)]
pub(crate) struct Measures {
    requests: Mutex<BTreeMap<(&'static str, u16), Requests>>,
    /// Concurrency by Revision as it was reported last.
    reported: Mutex<HashMap<Key, f64>>,
}

#[derive(Default)]
struct Requests {
    /// From arrival to the response's end.
    whole: Histogram,
    /// The part of it in the user container; none of it for requests that did not get there.
    container: Histogram,
}

impl Measures {
    /// A request has ended. `container`: since it was sent on.
    pub(crate) fn request(
        &self,
        method: &Method,
        status: u16,
        whole: Duration,
        container: Option<Duration>,
    ) {
        let known = METHODS.iter().any(|known| known == method);
        let method = match *method {
            _ if !known => "_OTHER",
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::DELETE => "DELETE",
            Method::CONNECT => "CONNECT",
            Method::OPTIONS => "OPTIONS",
            Method::TRACE => "TRACE",
            _ => "PATCH",
        };
        let mut requests = self.requests.lock();
        let requests = requests.entry((method, status)).or_default();
        requests.whole.record(whole);
        if let Some(container) = container {
            requests.container.record(container);
        }
    }

    /// A second is over, and this was reported.
    pub(crate) fn second(&self, stats: impl Iterator<Item = (Key, Stat)>) {
        let all = stats.map(|(key, stat)| (key, stat.average_concurrent_requests));
        *self.reported.lock() = all.collect();
    }
}

impl Handle {
    /// `GET /metrics` in Prometheus' text format; what is measured is measured from now on.
    pub fn serve_metrics(&self, listener: TcpListener, options: MetricsOptions) {
        let plane = self.plane().clone();
        let measures = Arc::new(Measures::default());
        plane.request_logs.measure(measures.clone());
        plane.measures.store(Some(measures.clone()));
        let tasks = plane.upstreams.clone();
        let options = Arc::new(options);
        let answer = move |request: Request<Incoming>| {
            let (plane, measures, options) = (plane.clone(), measures.clone(), options.clone());
            async move {
                if request.method() != Method::GET || request.uri().path() != "/metrics" {
                    return admin::text(StatusCode::NOT_FOUND, "404 page not found\n");
                }
                let page = page(&plane, &measures, &options);
                let mut answer = admin::text(StatusCode::OK, page);
                answer.headers_mut().insert(CONTENT_TYPE, TEXT);
                answer
            }
        };
        admin::serve(&tasks, "metrics-listener", listener, answer);
    }

    /// Port 8008 of Knative's components. `/debug/pprof/` is not there until profiling is enabled; of Go's profiles, a
    /// program that is not Go's has its command line alone.
    pub fn serve_profiling(&self, listener: TcpListener, enabled: bool, command_line: &[String]) {
        let command_line = command_line.join("\0");
        let answer = move |request: Request<Incoming>| {
            let path = request.uri().path().to_owned();
            let known = ["", "cmdline", "profile", "symbol", "trace"];
            let profile = path.strip_prefix("/debug/pprof/").map(str::to_owned);
            let answer = match profile.as_deref() {
                Some("cmdline") if enabled => admin::text(StatusCode::OK, command_line.clone()),
                Some(profile) if enabled && known.contains(&profile) => admin::text(
                    StatusCode::NOT_IMPLEMENTED,
                    "this program has no profiles of Go's runtime; use perf(1) on its process\n",
                ),
                _ => admin::text(StatusCode::NOT_FOUND, "404 page not found\n"),
            };
            async move { answer }
        };
        let tasks = &self.plane().upstreams;
        admin::serve(tasks, "profiling-listener", listener, answer);
    }
}

fn page(plane: &Plane, measures: &Measures, options: &MetricsOptions) -> String {
    let mut page = Page::default();
    page.metric("target_info", "gauge", "Who this is.");
    let resource = options.resource.iter();
    let resource: Vec<(&str, &str)> = resource.map(|(name, value)| (*name, &**value)).collect();
    page.sample("target_info", &resource, 1.0);
    requests(&mut page, plane.options().role, measures);
    match plane.options().role {
        Role::Queue => queue_depth(&mut page, plane),
        _ => revisions(&mut page, plane, measures),
    }
    if let Some(autoscaler) = &options.autoscaler {
        let peer = [("peer", "autoscaler")];
        let name = "kn_activator_stats_conn_reachable";
        page.metric(name, "gauge", "Whether the autoscaler is connected.");
        let connected = *autoscaler.connected.borrow();
        page.sample(name, &peer, f64::from(u8::from(connected)));
        let name = "kn_activator_stats_conn_errors_total";
        page.metric(name, "counter", "Connections that failed or were lost.");
        page.sample(
            name,
            &peer,
            number(autoscaler.errors.load(Ordering::Relaxed)),
        );
    }
    page.finish()
}

fn requests(page: &mut Page, role: Role, measures: &Measures) {
    let requests = measures.requests.lock();
    let name = "http_server_request_duration_seconds";
    page.metric(name, "histogram", "Duration of requests.");
    for ((method, status), requests) in &*requests {
        let status = status.to_string();
        let labels = [
            ("http_request_method", *method),
            ("http_response_status_code", &*status),
        ];
        page.histogram(name, &labels, &requests.whole);
    }
    if role != Role::Queue {
        return;
    }
    let name = "kn_serving_invocation_duration_seconds";
    page.metric(name, "histogram", "Time of requests in the user container.");
    for ((method, status), requests) in &*requests {
        if requests.container != Histogram::default() {
            let status = status.to_string();
            let labels = [
                ("http_request_method", *method),
                ("http_response_status_code", &*status),
            ];
            page.histogram(name, &labels, &requests.container);
        }
    }
}

/// Requests that wait for the user container, where it has a limit.
fn queue_depth(page: &mut Page, plane: &Plane) {
    let breakers = plane.clusters.breakers();
    let limited: Vec<_> = breakers
        .iter()
        .map(|breaker| breaker.gauges())
        .filter(|gauges| gauges.is_limited)
        .collect();
    if limited.is_empty() {
        return;
    }
    let name = "kn_serving_queue_depth";
    page.metric(name, "gauge", "Requests that wait for the user container.");
    let waiting = limited.iter().map(|gauges| u64::from(gauges.waiting)).sum();
    page.sample(name, &[], number(waiting));
}

/// What an activator knows of each Revision that has requests.
fn revisions(page: &mut Page, plane: &Plane, measures: &Measures) {
    let breakers = plane.clusters.breakers();
    let all: Vec<_> = breakers
        .iter()
        .map(|breaker| (breaker.key(), breaker.gauges()))
        .filter(|(_, gauges)| gauges.is_revision)
        .collect();
    let reported = measures.reported.lock();
    type Value = fn(&crate::breaker::Gauges) -> u32;
    let gauges: [(&str, &str, Value); 2] = [
        (
            "kn_revision_request_queued",
            "Requests that wait for a pod.",
            |gauges| gauges.waiting,
        ),
        (
            "kn_revision_request_active",
            "Requests that are sent on.",
            |gauges| gauges.in_flight.saturating_sub(gauges.waiting),
        ),
    ];
    for (name, help, value) in gauges {
        page.metric(name, "gauge", help);
        for (key, gauges) in &all {
            sample(
                page,
                name,
                key,
                gauges.configuration.as_deref(),
                f64::from(value(gauges)),
            );
        }
    }
    let name = "kn_revision_request_concurrency";
    page.metric(name, "gauge", "Concurrency as reported to the autoscaler.");
    for (key, gauges) in &all {
        let concurrency = reported.get(*key).copied().unwrap_or_default();
        sample(
            page,
            name,
            key,
            gauges.configuration.as_deref(),
            concurrency,
        );
    }
}

fn sample(page: &mut Page, name: &str, key: &Key, configuration: Option<&str>, value: f64) {
    let labels = [
        ("k8s_namespace_name", &*key.namespace),
        ("kn_configuration_name", configuration.unwrap_or_default()),
        ("kn_revision_name", &*key.name),
    ];
    page.sample(name, &labels, value);
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_clients_invent_share_one_series() {
        let measures = Measures::default();
        for method in ["GET", "BREW", "STIR", "PATCH"] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            measures.request(&method, 200, Duration::ZERO, None);
        }
        let mut page = Page::default();
        requests(&mut page, Role::Activator, &measures);
        let text = page.finish();
        let counts: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("_count{"))
            .collect();
        assert_eq!(
            counts,
            [
                r#"http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="200"} 1"#,
                r#"http_server_request_duration_seconds_count{http_request_method="PATCH",http_response_status_code="200"} 1"#,
                r#"http_server_request_duration_seconds_count{http_request_method="_OTHER",http_response_status_code="200"} 2"#,
            ]
        );
    }
}
