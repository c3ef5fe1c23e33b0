//! Service addresses: from the machine and from inside a pod, and what pods do not reach.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use kinglet_testkit::{Api, until, web};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::inside::{opens, process_with, shell};
use crate::{READY_MAX, root, run, start};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces";

/// What the other side of a port says to one request, asked by a shell in the network of a process.
fn ask(pid: u32, address: &str, port: u16) -> Option<String> {
    let ask =
        "printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&3 && cat <&3";
    shell(pid, address, port, ask)
}

/// The address of a Service.
pub(crate) async fn cluster_ip(api: &Api, path: &str) -> anyhow::Result<String> {
    let service = api.get(path).await?;
    let address = service["spec"]["clusterIP"].as_str();
    Ok(address.context("a ClusterIP")?.to_owned())
}

/// Everything of `cases/service-ports.yaml`, a node port, and a Service whose endpoints are written by hand.
async fn objects(api: &Api, mark: &str) -> anyhow::Result<()> {
    let container = json!({
        "name": "c", "image": "samples.kinglet/helloworld",
        "env": [{"name": "PORT", "value": "8080"}, {"name": "SERVICES_TEST", "value": mark}],
        "ports": [{"name": "plain", "containerPort": 8080}]
    });
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}});
    api.create(
        "/apis/apps/v1/namespaces/default/deployments",
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}}),
    )
    .await?;
    let service = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let ports = json!([
        {"name": "by-number", "port": 80, "targetPort": 8080},
        {"name": "by-name", "port": 81, "targetPort": "plain"}
    ]);
    let web = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": ports});
    api.create(SERVICES, &service("web", web)).await?;
    let by_hand = json!({"ports": [{"name": "http", "port": 8000}]});
    api.create(SERVICES, &service("by-hand", by_hand)).await?;
    Ok(())
}

#[test]
fn services_are_reached_by_address() {
    if !root() {
        return;
    }
    run(async {
        let (instance, api) = start().await?;
        let mark = format!("{}-{}", std::process::id(), instance.ready.pid);
        objects(&api, &mark).await?;
        let pod = until("the pod is ready", READY_MAX, || async {
            let slices = api.get(&format!("{SLICES}/default/endpointslices")).await?;
            let mut all = slices["items"].as_array().into_iter().flatten();
            let own = all
                .find(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "web");
            let endpoint = own.map(|slice| slice["endpoints"][0].clone());
            anyhow::Ok(
                endpoint
                    .filter(|one| one["conditions"]["ready"] == true)
                    .and_then(|one| one["addresses"][0].as_str().map(str::to_owned)),
            )
        })
        .await?;
        let by_hand = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "by-hand-1", "labels": {"kubernetes.io/service-name": "by-hand"}},
            "ports": [{"name": "http", "port": 8080}], "endpoints": [{"addresses": [pod]}]
        });
        api.create(&format!("{SLICES}/default/endpointslices"), &by_hand)
            .await?;

        let web_ip = cluster_ip(&api, &format!("{SERVICES}/web")).await?;
        let hand_ip = cluster_ip(&api, &format!("{SERVICES}/by-hand")).await?;
        let service = api.get(&format!("{SERVICES}/web")).await?;
        let node_port = service["spec"]["ports"][0]["nodePort"]
            .as_u64()
            .context("a node port")?;
        let ways = [
            format!("{web_ip}:80"),
            format!("{web_ip}:81"),
            format!("{hand_ip}:8000"),
            format!("127.0.0.1:{node_port}"),
        ];
        for way in &ways {
            until(&format!("{way} answers"), READY_MAX, || async {
                let answer = web::get(way, "web", "/").await.ok();
                anyhow::Ok(answer.filter(|answer| answer.status == 200).map(|_| ()))
            })
            .await?;
        }
        let pid =
            process_with(&format!("SERVICES_TEST={mark}")).context("the container's process")?;
        // The last one is the pod itself by way of its Service.
        for (address, port) in [(&web_ip, 80), (&web_ip, 81), (&hand_ip, 8000)] {
            let answer = ask(pid, address, port);
            ensure!(
                answer
                    .as_ref()
                    .is_some_and(|answer| answer.starts_with("HTTP/1.1 200")),
                "{address}:{port} from a pod: {answer:?}"
            );
        }
        refused(&api, pid, &web_ip, &instance.ready.api_url).await?;
        instance.stop().await
    });
}

/// What nobody answers for is refused at once, and Kinglet's own ports are not there for pods.
async fn refused(api: &Api, pid: u32, web_ip: &str, api_url: &str) -> anyhow::Result<()> {
    let slices = api
        .get(&format!("{SLICES}/knative-serving/endpointslices"))
        .await?;
    let mut all = slices["items"].as_array().into_iter().flatten();
    let activator = all
        .find(|slice| {
            slice["metadata"]["labels"]["kubernetes.io/service-name"] == "activator-service"
        })
        .context("the activator's slice")?;
    let gateway = activator["endpoints"][0]["addresses"][0]
        .as_str()
        .context("the gateway's address")?;
    let api_port: u16 = api_url.rsplit(':').next().context("a port")?.parse()?;
    let nobody = web_ip.rsplit_once('.').context("an address")?.0.to_owned() + ".255";
    for (address, port) in [
        (web_ip, 99),
        (nobody.as_str(), 80),
        (gateway, api_port),
        (gateway, 22),
        ("169.254.169.254", 80),
    ] {
        ensure!(!opens(pid, address, port), "{address}:{port} from a pod");
    }
    ensure!(web::get(&format!("{web_ip}:99"), "web", "/").await.is_err());
    let kubernetes = cluster_ip(api, &format!("{SERVICES}/kubernetes")).await?;
    ensure!(opens(pid, &kubernetes, 443), "{kubernetes} from a pod");
    ensure!(opens(pid, gateway, 80), "the gateway from a pod");
    Ok(())
}

#[test]
fn the_api_server_is_a_service_with_a_certificate_for_it() {
    if !root() {
        return;
    }
    run(async {
        let (instance, api) = start().await?;
        let address = cluster_ip(&api, &format!("{SERVICES}/kubernetes")).await?;
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        until("the account is there", READY_MAX, || api.find(account)).await?;
        let request =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let token = api.create(&format!("{account}/token"), &request).await?;
        let token = token["status"]["token"]
            .as_str()
            .context("a token")?
            .to_owned();
        let mut file = Kubeconfig::read_from(&instance.ready.kubeconfig)?;
        for user in &mut file.auth_infos {
            let user = user.auth_info.get_or_insert_default();
            (user.client_certificate_data, user.client_key_data) = (None, None);
            user.token = Some(token.clone().into());
        }
        // By the address, as client-go in a pod does it, and by the name.
        for name in [None, Some("kubernetes.default.svc")] {
            for cluster in &mut file.clusters {
                let cluster = cluster.cluster.get_or_insert_default();
                cluster.server = Some(format!("https://{address}"));
                cluster.tls_server_name = name.map(str::to_owned);
            }
            let config =
                kube::Config::from_custom_kubeconfig(file.clone(), &KubeConfigOptions::default())
                    .await?;
            let client = kube::Client::try_from(config)?;
            let review = serde_json::to_vec(
                &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}),
            )?;
            // Addresses of Services are in force a moment after the Services are there.
            until("an answer at the address", READY_MAX, || async {
                let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
                let request = http::Request::post(path)
                    .header("content-type", "application/json")
                    .body(review.clone())?;
                let asked = client.request::<Value>(request);
                let answer = tokio::time::timeout(Duration::from_secs(30), asked).await??;
                ensure!(
                    answer["status"]["userInfo"]["username"]
                        == "system:serviceaccount:default:default",
                    "{answer}"
                );
                Ok(Some(()))
            })
            .await?;
        }
        instance.stop().await
    });
}
