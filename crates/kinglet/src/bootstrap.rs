//! The objects that are there from the start: namespaces, ConfigMaps, the API server's own Service; CRDs where they are ours to make.

use std::time::Duration;

use anyhow::Context as _;
use http::Request;
use http::header::CONTENT_TYPE;
use kinglet_apiserver::ApiServer;
use kube::Client;
use serde_json::{Value, json};

/// Namespaces of a fresh cluster, and Knative's.
const NAMESPACES: [&str; 6] = [
    "default",
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "knative-serving",
    "kinglet-system",
];
/// A new kind is served within a second.
const SERVED_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Creates or updates the CRDs of this program's version.
pub(crate) async fn definitions(api: &ApiServer) -> anyhow::Result<()> {
    for crd in kinglet_api::manifests::parsed_crds() {
        let name = crd["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        api.install(crd)
            .await
            .map_err(|status| anyhow::anyhow!("installing {name}: {}", status.message))?;
    }
    Ok(())
}

/// The same on another's API server: applies the CRDs and waits until all are served.
pub(crate) async fn definitions_through(client: &Client) -> anyhow::Result<()> {
    const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let crds = kinglet_api::manifests::parsed_crds();
    for crd in &crds {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default();
        let request = Request::patch(format!("{PATH}/{name}?fieldManager=kinglet&force=true"))
            .header(CONTENT_TYPE, "application/apply-patch+yaml")
            .body(serde_json::to_vec(crd)?)?;
        client
            .request::<Value>(request)
            .await
            .with_context(|| format!("installing {name}"))?;
    }
    let deadline = tokio::time::Instant::now() + SERVED_MAX;
    for crd in &crds {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default();
        while !is_established(
            &client
                .request::<Value>(Request::get(format!("{PATH}/{name}")).body(Vec::new())?)
                .await?,
        ) {
            anyhow::ensure!(
                tokio::time::Instant::now() < deadline,
                "the API server does not serve {name}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

fn is_established(crd: &Value) -> bool {
    let mut conditions = crd["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

/// Makes what is missing; what users changed stays.
pub(crate) async fn run(client: &Client) -> anyhow::Result<()> {
    for name in NAMESPACES {
        let mut namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        // Whoever may write here administers the cluster anyway.
        if name == "kube-system" {
            namespace["metadata"]["labels"] =
                json!({"pod-security.kubernetes.io/enforce": "privileged"});
        }
        create(client, "/api/v1/namespaces", &namespace).await?;
    }
    for map in kinglet_api::manifests::parsed_configmaps() {
        create(
            client,
            "/api/v1/namespaces/knative-serving/configmaps",
            &map,
        )
        .await?;
    }
    for object in kinglet_api::manifests::parsed_roles() {
        create(client, &collection(&object), &object).await?;
    }
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]}
    });
    create(client, "/api/v1/namespaces/default/services", &service).await
}

/// Where an account, role or binding is created.
fn collection(object: &Value) -> String {
    let plural = format!(
        "{}s",
        object["kind"].as_str().unwrap_or_default().to_lowercase()
    );
    let root = match object["apiVersion"].as_str().unwrap_or_default() {
        "v1" => "/api/v1".to_owned(),
        version => format!("/apis/{version}"),
    };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
        None => format!("{root}/{plural}"),
    }
}

/// Creates, unless it is there already.
async fn create(client: &Client, collection: &str, object: &Value) -> anyhow::Result<()> {
    let request = Request::post(collection)
        .header(CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(object)?)?;
    match client.request::<Value>(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error).with_context(|| {
            format!(
                "creating {} {}",
                object["kind"].as_str().unwrap_or_default(),
                object["metadata"]["name"].as_str().unwrap_or_default()
            )
        }),
    }
}
