//! `logs`: of a pod, or of the newest pod of a Knative Service.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use futures_util::AsyncReadExt as _;
use serde_json::Value;

use crate::args::LogsArgs;
use crate::client::Connection;

pub(crate) async fn run(args: &LogsArgs) -> anyhow::Result<()> {
    let connection = Connection::open(&args.target).await?;
    let named = parse(&args.pod)?;
    let pod = find(&connection, named).await?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let container = match &args.container {
        Some(container) => container.clone(),
        None => default_container(&pod).context("the pod has no containers")?,
    };
    // Said before the log as well as after a refusal: a crash-looping container may have logged nothing.
    let trouble = trouble(&connection, named, &pod, &container).await?;
    let path = log_path(&connection.namespace, name, &container, args);
    let opened = connection.lines(&path).await;
    let mut lines = match (opened, &trouble) {
        (Ok(lines), _) => std::pin::pin!(lines),
        (Err(_), Some(trouble)) => bail!("{name} has no log of {container}: {trouble}"),
        (Err(error), None) => return Err(error),
    };
    let mut buffer = vec![0_u8; 16 << 10];
    let mut out = std::io::stdout().lock();
    loop {
        let count = lines.read(&mut buffer).await.context("reading the log")?;
        if count == 0 {
            break;
        }
        out.write_all(&buffer[..count])
            .and_then(|()| out.flush())
            .map_err(crate::screen::Unwritten)?;
    }
    if let Some(trouble) = trouble {
        anstream::eprintln!("{name} is not ready: {trouble}");
    }
    Ok(())
}

fn log_path(namespace: &str, pod: &str, container: &str, args: &LogsArgs) -> String {
    let mut path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}");
    if args.follow {
        path.push_str("&follow=true");
    }
    if args.previous {
        path.push_str("&previous=true");
    }
    if let Some(lines) = args.tail {
        path.push_str(&format!("&tailLines={lines}"));
    }
    path
}

/// What the words name.
#[derive(Clone, Copy)]
enum Named<'a> {
    Pod(&'a str),
    /// `service` or `revision` of Knative Serving, and its name.
    Serving(&'static str, &'a str),
}

fn parse(word: &str) -> anyhow::Result<Named<'_>> {
    crate::client::segment(word.split_once('/').map_or(word, |(_, name)| name))?;
    Ok(match word.split_once('/') {
        None => Named::Pod(word),
        Some(("pod" | "pods" | "po", name)) => Named::Pod(name),
        Some(("ksvc" | "kservice" | "service.serving.knative.dev", name)) => {
            Named::Serving("service", name)
        }
        Some(("revision" | "rev" | "revision.serving.knative.dev", name)) => {
            Named::Serving("revision", name)
        }
        Some((kind, _)) => {
            bail!("logs are of pods: write POD, pod/NAME, ksvc/NAME or revision/NAME, not {kind}/…")
        }
    })
}

/// Why a container does not run, or runs and never gets ready: from the Service's or Revision's condition where one was named, else from the Pod.
async fn trouble(
    connection: &Connection,
    named: Named<'_>,
    pod: &Value,
    container: &str,
) -> anyhow::Result<Option<String>> {
    if let Named::Serving(kind, name) = named {
        let path = serving_path(connection, kind, name);
        if let Some(said) = connection.find(&path).await?.as_ref().and_then(not_ready) {
            return Ok(Some(said));
        }
    }
    Ok(waiting(pod, container).or_else(|| not_ready(pod)))
}

fn serving_path(connection: &Connection, kind: &str, name: &str) -> String {
    let namespace = &connection.namespace;
    format!("/apis/serving.knative.dev/v1/namespaces/{namespace}/{kind}s/{name}")
}

/// Reason and message of a Ready condition that is not True.
fn not_ready(object: &Value) -> Option<String> {
    let conditions = object["status"]["conditions"].as_array()?;
    let ready = conditions
        .iter()
        .find(|condition| condition["type"] == "Ready" && condition["status"] != "True")?;
    sentence(ready)
}

fn sentence(detail: &Value) -> Option<String> {
    let parts = [&detail["reason"], &detail["message"]].map(|part| part.as_str().unwrap_or(""));
    let said = parts.into_iter().filter(|part| !part.is_empty());
    let said: Vec<&str> = said.collect();
    (!said.is_empty()).then(|| said.join(": "))
}

/// Why a container waits, with the end of its last life where it had one.
fn waiting(pod: &Value, container: &str) -> Option<String> {
    let statuses = pod["status"]["containerStatuses"].as_array()?;
    let status = statuses.iter().find(|status| status["name"] == container)?;
    let waiting = sentence(&status["state"]["waiting"])?;
    let ended = &status["lastState"]["terminated"];
    let last = sentence(ended).map(|said| {
        let code = ended["exitCode"].as_i64().unwrap_or_default();
        format!("; last exit code {code}, {said}")
    });
    Some(format!("{waiting}{}", last.unwrap_or_default()))
}

async fn find(connection: &Connection, named: Named<'_>) -> anyhow::Result<Value> {
    match named {
        Named::Pod(name) => named_pod(connection, name).await,
        Named::Serving(kind, name) => newest(connection, kind, name).await,
    }
}

/// A pod by its name. Who meant a Service or a Revision is told how to name it.
async fn named_pod(connection: &Connection, name: &str) -> anyhow::Result<Value> {
    let namespace = &connection.namespace;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    if let Some(pod) = connection.find(&path).await? {
        return Ok(pod);
    }
    for (kind, shown, short) in [
        ("service", "Service", "ksvc"),
        ("revision", "Revision", "revision"),
    ] {
        let path = serving_path(connection, kind, name);
        // Whoever may read Pods only is told of these only.
        if let Ok(Some(_)) = connection.find(&path).await {
            bail!(
                "pods {name:?} not found, but a {shown} of that name is there: write `kinglet logs {short}/{name}`"
            );
        }
    }
    connection.get(&path).await
}

/// The newest pod of a Service or Revision, one that stays if there is one.
async fn newest(connection: &Connection, kind: &str, name: &str) -> anyhow::Result<Value> {
    let namespace = &connection.namespace;
    let list = connection
        .get(&format!(
            "/api/v1/namespaces/{namespace}/pods?labelSelector=serving.knative.dev/{kind}={name}"
        ))
        .await?;
    if let Some(pod) = choose(&list) {
        return Ok(pod.clone());
    }
    // The server says it better when there is no such thing.
    let object = connection
        .get(&serving_path(connection, kind, name))
        .await?;
    match not_ready(&object) {
        Some(said) => bail!("{kind} {name} has no pod, because it is not ready: {said}"),
        None => {
            bail!("{kind} {name} has no pod now (it may be scaled to zero; a request wakes it)")
        }
    }
}

fn choose(pods: &Value) -> Option<&Value> {
    let rank = |pod: &&Value| {
        (
            pod["metadata"]["deletionTimestamp"].is_null(),
            pod["metadata"]["creationTimestamp"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    pods["items"].as_array()?.iter().max_by_key(rank)
}

fn default_container(pod: &Value) -> Option<String> {
    let named = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    named
        .or_else(|| pod["spec"]["containers"][0]["name"].as_str())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_pod_that_stays() {
        let pod = |name: &str, created: &str, leaving: bool| json!({"metadata": {"name": name, "creationTimestamp": created, "deletionTimestamp": leaving.then_some("2026-01-09T00:00:00Z")}});
        let pods = json!({"items": [pod("old", "2026-01-01T00:00:00Z", false), pod("new", "2026-01-02T00:00:00Z", false), pod("leaving", "2026-01-03T00:00:00Z", true)]});
        assert_eq!(choose(&pods).expect("one")["metadata"]["name"], "new");
        assert_eq!(choose(&json!({"items": []})), None);
    }

    #[test]
    fn why_a_container_does_not_run() {
        let looping = json!({"status": {"containerStatuses": [
            {"name": "queue-proxy", "state": {"running": {}}},
            {"name": "user-container", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                "lastState": {"terminated": {"reason": "Error", "message": "no such file", "exitCode": 3}}}]}});
        assert_eq!(
            waiting(&looping, "user-container").as_deref(),
            Some("CrashLoopBackOff: back-off 10s; last exit code 3, Error: no such file")
        );
        assert_eq!(waiting(&looping, "queue-proxy"), None);
        let service = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "RevisionFailed", "message": "no such image"}]}});
        assert_eq!(
            not_ready(&service).as_deref(),
            Some("RevisionFailed: no such image")
        );
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(not_ready(&ready), None);
    }

    #[test]
    fn the_container_that_the_pod_names() {
        let pod = json!({"metadata": {"annotations": {}}, "spec": {"containers": [{"name": "user-container"}, {"name": "queue-proxy"}]}});
        assert_eq!(default_container(&pod).as_deref(), Some("user-container"));
    }
}
