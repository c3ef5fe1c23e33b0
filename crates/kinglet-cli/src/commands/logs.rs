//! `logs`: of a pod, or of the newest pod of a Knative Service.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use futures_util::AsyncReadExt as _;
use serde_json::Value;

use crate::args::LogsArgs;
use crate::client::Connection;

pub(crate) async fn run(args: &LogsArgs) -> anyhow::Result<()> {
    let connection = Connection::open(&args.target).await?;
    let pod = find(&connection, &args.pod).await?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let container = match &args.container {
        Some(container) => container.clone(),
        None => default_container(&pod).context("the pod has no containers")?,
    };
    let mut path = format!(
        "/api/v1/namespaces/{}/pods/{name}/log?container={container}",
        connection.namespace
    );
    if args.follow {
        path.push_str("&follow=true");
    }
    if args.previous {
        path.push_str("&previous=true");
    }
    if let Some(lines) = args.tail {
        path.push_str(&format!("&tailLines={lines}"));
    }
    let mut lines = std::pin::pin!(connection.lines(&path).await?);
    let mut buffer = vec![0_u8; 16 << 10];
    let mut out = std::io::stdout().lock();
    loop {
        let count = lines.read(&mut buffer).await.context("reading the log")?;
        if count == 0 {
            return Ok(());
        }
        out.write_all(&buffer[..count])?;
        out.flush()?;
    }
}

async fn find(connection: &Connection, word: &str) -> anyhow::Result<Value> {
    let namespace = &connection.namespace;
    crate::client::segment(word.split_once('/').map_or(word, |(_, name)| name))?;
    match word.split_once('/') {
        None => {
            connection
                .get(&format!("/api/v1/namespaces/{namespace}/pods/{word}"))
                .await
        }
        Some(("pod" | "pods" | "po", name)) => {
            connection
                .get(&format!("/api/v1/namespaces/{namespace}/pods/{name}"))
                .await
        }
        Some(("ksvc" | "kservice" | "service.serving.knative.dev", name)) => {
            newest(connection, "service", name).await
        }
        Some(("revision" | "rev" | "revision.serving.knative.dev", name)) => {
            newest(connection, "revision", name).await
        }
        Some((kind, _)) => {
            bail!("logs are of pods: write POD, pod/NAME, ksvc/NAME or revision/NAME, not {kind}/…")
        }
    }
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
    connection
        .get(&format!(
            "/apis/serving.knative.dev/v1/namespaces/{namespace}/{kind}s/{name}"
        ))
        .await?;
    bail!("{kind} {name} has no pod now (it may be scaled to zero; a request wakes it)")
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
    fn the_container_that_the_pod_names() {
        let pod = json!({"metadata": {"annotations": {}}, "spec": {"containers": [{"name": "user-container"}, {"name": "queue-proxy"}]}});
        assert_eq!(default_container(&pod).as_deref(), Some("user-container"));
    }
}
