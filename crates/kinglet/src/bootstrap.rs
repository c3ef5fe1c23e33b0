//! The objects that are there from the start: namespaces, ConfigMaps, the API server's own Service; CRDs where they are ours to make.

use anyhow::Context as _;
use kinglet_apiserver::ApiServer;
use kube::Client;
use serde_json::{Value, json};

/// Namespaces of a fresh cluster, and Knative's.
const NAMESPACES: [&str; 6] = ["default", "kube-system", "kube-public", "kube-node-lease", "knative-serving", "kinglet-system"];

/// Creates or updates the CRDs of this program's version.
pub(crate) async fn definitions(api: &ApiServer) -> anyhow::Result<()> {
    for crd in kinglet_api::manifests::parsed_crds() {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        api.install(crd).await.map_err(|status| anyhow::anyhow!("installing {name}: {}", status.message))?;
    }
    Ok(())
}

/// Makes what is missing; what users changed stays.
pub(crate) async fn run(client: &Client) -> anyhow::Result<()> {
    for name in NAMESPACES {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create(client, "/api/v1/namespaces", &namespace).await?;
    }
    for map in kinglet_api::manifests::parsed_configmaps() {
        create(client, "/api/v1/namespaces/knative-serving/configmaps", &map).await?;
    }
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]}
    });
    create(client, "/api/v1/namespaces/default/services", &service).await
}

/// Creates, unless it is there already.
async fn create(client: &Client, collection: &str, object: &Value) -> anyhow::Result<()> {
    let request = http::Request::post(collection).header(http::header::CONTENT_TYPE, "application/json").body(serde_json::to_vec(object)?)?;
    match client.request::<Value>(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("creating {} {}", object["kind"].as_str().unwrap_or_default(), object["metadata"]["name"].as_str().unwrap_or_default())),
    }
}
