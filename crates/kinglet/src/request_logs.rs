//! Request logs: what the gateway saw, in the operator's template, in the log of the pod's queue-proxy.
//!
//! Flow: `config-observability` switches it on -> the gateway sends an entry per request -> **here** it becomes a line
//! (spec/serving.md 6.3.8) -> the node appends it to the log that `kubectl logs -c queue-proxy` shows.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kinglet_api::template::Template;
use kinglet_dataplane::RequestLogEntry;
use kinglet_node::NodeHandle;
use kinglet_process::Tasks;
use kinglet_reconcile::{Caches, Change};
use kinglet_serving::configs::{LiveConfigs, is_ours};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Entries that may wait for the disk; more are dropped, since a log must not slow requests down.
const ENTRIES_MAX: usize = 4096;

/// Lines written at once.
const BATCH_MAX: usize = 256;

/// Follows the configuration and writes lines until the tasks end.
pub(crate) fn follow(
    caches: &Caches,
    configs: &LiveConfigs,
    gateway: &kinglet_dataplane::Handle,
    node: &NodeHandle,
    tasks: &Tasks,
) {
    let (entries, log) = mpsc::channel::<RequestLogEntry>(ENTRIES_MAX);
    let template = Arc::<Mutex<Option<Template>>>::default();
    let switch = {
        let (template, gateway, configs) = (template.clone(), gateway.clone(), configs.clone());
        move || {
            let configs = configs.get();
            let observability = &configs.observability;
            // Admission has refused what does not parse.
            let parsed = Template::parse("requestLog", &observability.request_log_template).ok();
            let enabled = observability.enable_request_log && parsed.is_some();
            *template.lock() = parsed;
            let probes = observability.enable_probe_request_log;
            gateway.log_requests(enabled.then(|| entries.clone()), probes);
        }
    };
    switch();
    // `LiveConfigs` observes the same cache and was there first: it has taken the change over already.
    caches
        .cache::<ConfigMap>()
        .observe(move |change: &Change<ConfigMap>| {
            if change.object().is_some_and(|map| is_ours(map)) {
                switch();
            }
        });
    let node = node.clone();
    // A template is a user's, so that a line which cannot be made must not end the process.
    let (log, stop) = (Arc::new(tokio::sync::Mutex::new(log)), tasks.token());
    tasks.restarted("request-logs", move || {
        let (log, stop) = (Arc::clone(&log), stop.clone());
        let (template, node) = (Arc::clone(&template), node.clone());
        async move {
            let mut log = log.lock().await;
            loop {
                let entry = tokio::select! {
                    () = stop.cancelled() => return,
                    entry = log.recv() => entry,
                };
                // Nobody can log any more.
                let Some(entry) = entry else { return };
                let Some(template) = template.lock().clone() else {
                    continue;
                };
                let line = line(&template, &entry);
                node.append_proxy_log(&entry.revision.namespace, &entry.pod.0, &line);
            }
        }
    });
}

/// The log of a queue-proxy in a process of its own: lines on standard output. `Err` says what is wrong with the template.
pub(crate) fn to_standard_output(
    template: &str,
    probes: bool,
    handle: &kinglet_dataplane::Handle,
    tasks: &Tasks,
) -> Result<(), String> {
    let template = Template::parse("requestLog", template).map_err(|error| error.to_string())?;
    let (entries, mut log) = mpsc::channel::<RequestLogEntry>(ENTRIES_MAX);
    handle.log_requests(Some(entries), probes);
    tasks.component_cancellable("request-logs", async move {
        let mut batch = Vec::new();
        while log.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let mut text = String::new();
            for entry in batch.drain(..) {
                text.push_str(&line(&template, &entry));
                if !text.ends_with('\n') {
                    text.push('\n');
                }
            }
            // On a thread of its own: a reader that is slow must not hold requests up.
            let written = tokio::task::spawn_blocking(move || {
                let mut output = std::io::stdout().lock();
                output.write_all(text.as_bytes())?;
                output.flush()
            });
            if let Ok(Err(error)) = written.await {
                // Whoever read it has gone; requests go on.
                tracing::debug!(%error, "writing the request log");
            }
        }
        std::future::pending().await
    });
    Ok(())
}

fn line(template: &Template, entry: &RequestLogEntry) -> String {
    match template.render(&data(entry)) {
        Ok(line) => line,
        Err(error) => format!("Invalid request log template: {error}"),
    }
}

/// The template's inputs, named as in Go.
fn data(entry: &RequestLogEntry) -> Value {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &entry.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers
            .entry(canonical(name.as_str()))
            .or_default()
            .push(value);
    }
    let header = |name: &str| headers.get(name).map_or("", |values| values[0].as_str());
    let length = match header("Content-Length").parse::<i64>() {
        Ok(length) => length,
        Err(_) if headers.contains_key("Transfer-Encoding") => -1,
        Err(_) => 0,
    };
    let trace = match header("Traceparent").split('-').nth(1) {
        Some(trace) => trace,
        None => header("X-B3-Traceid"),
    };
    let (path, query) = entry.target.split_once('?').unwrap_or((&entry.target, ""));
    json!({
        "Request": {
            "Method": entry.method.as_str(),
            "RequestURI": entry.target,
            "URL": {"String": entry.target, "Path": path, "RawQuery": query},
            "Host": entry.host,
            "Proto": format!("{:?}", entry.version),
            "ContentLength": length,
            "UserAgent": header("User-Agent"),
            "Referer": header("Referer"),
            "RemoteAddr": entry.remote.to_string(),
            "Header": headers,
        },
        "Response": {
            "Code": entry.status,
            "Size": entry.response_bytes,
            "Latency": entry.latency.as_secs_f64(),
        },
        "Revision": {
            "Name": &*entry.revision.name,
            "Namespace": &*entry.revision.namespace,
            "Service": &*entry.configuration,
            "Configuration": &*entry.configuration,
            "PodName": &*entry.pod.0,
            "PodIP": entry.pod.1.ip().to_string(),
        },
        "TraceID": trace,
    })
}

/// Go's spelling of a header's name.
fn canonical(name: &str) -> String {
    let words: Vec<String> = name
        .split('-')
        .map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        })
        .collect();
    words.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_template_makes_json() {
        let entry = RequestLogEntry {
            revision: kinglet_decide::feed::Key::new("ns", "r"),
            configuration: "c".into(),
            pod: ("p".into(), "10.0.0.1:80".parse().expect("an address")),
            method: "POST".parse().expect("a method"),
            target: "/a?q=\"<x>".to_owned(),
            version: http::Version::HTTP_11,
            host: "h".to_owned(),
            headers: [
                ("user-agent", "curl/8"),
                ("content-length", "7"),
                ("traceparent", "00-abc-def-01"),
            ]
            .into_iter()
            .map(|(name, value)| {
                (
                    name.parse::<http::HeaderName>().expect("a name"),
                    value.parse::<http::HeaderValue>().expect("a value"),
                )
            })
            .collect(),
            remote: "127.0.0.1:4711".parse().expect("an address"),
            status: 200,
            response_bytes: 5,
            latency: std::time::Duration::from_millis(1500),
        };
        let default = kinglet_api::config::Configs::for_domain("example.com").observability;
        let template =
            Template::parse("requestLog", &default.request_log_template).expect("parses");
        let written: Value = serde_json::from_str(&line(&template, &entry)).expect("JSON");
        assert_eq!(
            written,
            json!({
                "httpRequest": {
                    "requestMethod": "POST", "requestUrl": "/a?q=\"<x>", "requestSize": "7", "status": 200,
                    "responseSize": "5", "userAgent": "curl/8", "remoteIp": "127.0.0.1:4711", "serverIp": "10.0.0.1",
                    "referer": "", "latency": "1.5s", "protocol": "HTTP/1.1",
                },
                "traceId": "abc",
            })
        );
        let broken = Template::parse("requestLog", "{{.Nothing}}").expect("parses");
        assert!(line(&broken, &entry).starts_with("Invalid request log template: "));
    }
}
