//! The objects that are there from the start: namespaces, ConfigMaps, the API server's own Service; CRDs where they are ours to make.

use std::net::Ipv4Addr;
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
/// The Services that Ingresses announce (`status.publicLoadBalancer`, `status.privateLoadBalancer`).
const GATEWAYS: [&str; 2] = ["gateway", "gateway-internal"];
/// Name of the only Node, and of what stands for an activator's Pod on it.
const MACHINE: &str = "kinglet";
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
    if kinglet_api::manifests::has_eventing() {
        eventing(client).await?;
    }
    for object in kinglet_api::manifests::parsed_roles() {
        create(client, &collection(&object), &object).await?;
    }
    Ok(())
}

/// The namespace of Eventing and its ConfigMaps.
async fn eventing(client: &Client) -> anyhow::Result<()> {
    const NAMESPACE: &str = kinglet_api::config::eventing::SYSTEM_NAMESPACE;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    create(client, "/api/v1/namespaces", &namespace).await?;
    let collection = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    for map in kinglet_api::manifests::parsed_eventing_configmaps(true) {
        create(client, &collection, &map).await?;
    }
    Ok(())
}

/// Makes our own API server's Service, unless it is there; gives the address that it has.
pub(crate) async fn api_service(
    client: &Client,
    address: Ipv4Addr,
) -> anyhow::Result<Option<Ipv4Addr>> {
    const COLLECTION: &str = "/api/v1/namespaces/default/services";
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": address.to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]
        }
    });
    // One of an older version may have another address than the first, so it is asked for before it is made.
    let request = Request::get(format!("{COLLECTION}/kubernetes")).body(Vec::new())?;
    let found = match client.request::<Value>(request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            create(client, COLLECTION, &service).await?;
            service
        }
        found => found.context("reading the Service kubernetes")?,
    };
    Ok(found["spec"]["clusterIP"]
        .as_str()
        .and_then(|address| address.parse().ok()))
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

/// Says where the Services that the node itself answers lead: the API server, the gateway in both directions, and the
/// activator, which the gateway is.
pub(crate) async fn endpoints(
    client: &Client,
    bridge: Ipv4Addr,
    activators: &[Ipv4Addr],
    api_port: Option<u16>,
) -> anyhow::Result<()> {
    let machine = [json!({"ip": bridge.to_string()})];
    if let Some(port) = api_port {
        let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
        lead(client, ("default", "kubernetes"), &machine, &ports).await?;
    }
    let http = json!([{"name": "http2", "port": 80, "protocol": "TCP"}]);
    for name in GATEWAYS {
        let ports = json!([{"name": "http2", "port": 80, "targetPort": 80}]);
        service(client, ("kinglet-system", name), &ports).await?;
        lead(client, ("kinglet-system", name), &machine, &http).await?;
    }
    let activator = ("knative-serving", "activator-service");
    let ports = json!([
        {"name": "http", "port": 80, "targetPort": 8012},
        {"name": "http2", "port": 81, "targetPort": 8013}
    ]);
    service(client, activator, &ports).await?;
    let ports = json!([
        {"name": "http", "port": 80, "protocol": "TCP"},
        {"name": "http2", "port": 80, "protocol": "TCP"}
    ]);
    // What the public Endpoints of a Revision show while requests wait for its pods.
    let addresses: Vec<Value> = activators
        .iter()
        .map(|address| {
            json!({
                "ip": address.to_string(), "nodeName": MACHINE,
                "targetRef": {"kind": "Pod", "name": MACHINE, "namespace": "knative-serving"}
            })
        })
        .collect();
    lead(client, activator, &addresses, &ports).await
}

/// A Service without a selector.
async fn service(
    client: &Client,
    (namespace, name): (&str, &str),
    ports: &Value,
) -> anyhow::Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": ports}
    });
    create(
        client,
        &format!("/api/v1/namespaces/{namespace}/services"),
        &service,
    )
    .await
}

/// Makes a Service's Endpoints; EndpointSlices follow them.
async fn lead(
    client: &Client,
    (namespace, name): (&str, &str),
    addresses: &[Value],
    ports: &Value,
) -> anyhow::Result<()> {
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": name, "namespace": namespace},
        "subsets": [{"addresses": addresses, "ports": ports}]
    });
    let path =
        format!("/api/v1/namespaces/{namespace}/endpoints/{name}?fieldManager=kinglet&force=true");
    let request = Request::patch(path)
        .header(CONTENT_TYPE, "application/apply-patch+yaml")
        .body(serde_json::to_vec(&endpoints)?)?;
    client
        .request::<Value>(request)
        .await
        .map(|_| ())
        .with_context(|| format!("writing the Endpoints {namespace}/{name}"))
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
