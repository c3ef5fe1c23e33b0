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
    let mut path = format!("/api/v1/namespaces/{}/pods/{name}/log?container={container}", connection.namespace);
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
    match word.split_once('/') {
        None => connection.get(&format!("/api/v1/namespaces/{namespace}/pods/{word}")).await,
        Some(("pod" | "pods" | "po", name)) => connection.get(&format!("/api/v1/namespaces/{namespace}/pods/{name}")).await,
        Some(("ksvc" | "service.serving.knative.dev", name)) => {
            let list = connection.get(&format!("/api/v1/namespaces/{namespace}/pods?labelSelector=serving.knative.dev/service={name}")).await?;
            let newest = list["items"].as_array().into_iter().flatten().max_by_key(|pod| pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned());
            newest.cloned().with_context(|| format!("service {name} has no pod now (it may be scaled to zero; a request wakes it)"))
        }
        Some((kind, _)) => bail!("logs are of pods: write POD, pod/NAME or ksvc/NAME, not {kind}/…"),
    }
}

fn default_container(pod: &Value) -> Option<String> {
    let named = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    named.or_else(|| pod["spec"]["containers"][0]["name"].as_str()).map(str::to_owned)
}
