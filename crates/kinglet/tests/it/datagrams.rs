//! Services over UDP with real traffic: ports, clients that stay, endpoints that go, and nobody there.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kinglet_testkit::{Api, until};
use serde_json::{Value, json};

use crate::inside::{UdpClient, UdpServer, connect, process_with};
use crate::services::cluster_ip;
use crate::{READY_MAX, run, start};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
/// A wrong answer, or none, comes again until this is over.
const SETTLE_MAX: Duration = Duration::from_secs(20);
const ONE_TRY: Duration = Duration::from_millis(200);
/// Well below any timeout of TCP or a resolver.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A pod whose network the test's own sockets use.
pub(crate) async fn pod(
    api: &Api,
    collection: &str,
    mut object: Value,
    mark: &str,
) -> anyhow::Result<u32> {
    let name = object["metadata"]["name"]
        .as_str()
        .context("a name")?
        .to_owned();
    object["apiVersion"] = json!("v1");
    object["kind"] = json!("Pod");
    let container = &mut object["spec"]["containers"][0];
    container["name"] = json!("c");
    container["image"] = json!("samples.kinglet/helloworld");
    container["env"] = json!([{"name": "PORT", "value": "8080"}, {"name": "DATAGRAMS_TEST", "value": format!("{mark}-{name}")}]);
    object["spec"]["terminationGracePeriodSeconds"] = json!(1);
    api.create(collection, &object).await?;
    until(&format!("pod {name} is ready"), READY_MAX, || async {
        let pod = api.get(&format!("{collection}/{name}")).await?;
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.any(|one| one["type"] == "Ready" && one["status"] == "True");
        anyhow::ensure!(ready, "{}", pod["status"]);
        Ok(process_with(&format!("DATAGRAMS_TEST={mark}-{name}")))
    })
    .await
}

async fn member(api: &Api, name: &str, mark: &str) -> anyhow::Result<u32> {
    let ports = json!([{"name": "names", "containerPort": 5353, "protocol": "UDP"}, {"name": "more", "containerPort": 5354, "protocol": "UDP"}]);
    let object = json!({"metadata": {"name": name, "labels": {"app": "udp"}}, "spec": {"containers": [{"ports": ports}]}});
    pod(api, PODS, object, mark).await
}

fn service(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

#[test]
fn datagrams_find_pods_that_live() {
    run(async {
        let (instance, api) = start().await?;
        let mark = format!("{}-{}", std::process::id(), instance.ready.pid);
        let ports = json!([
            {"name": "names", "port": 53, "targetPort": "names", "protocol": "UDP"},
            {"name": "more", "port": 54, "targetPort": 5354, "protocol": "UDP"}
        ]);
        let spec = json!({"type": "NodePort", "selector": {"app": "udp"}, "ports": ports});
        api.create(SERVICES, &service("udp", &spec)).await?;
        let address = cluster_ip(&api, &format!("{SERVICES}/udp")).await?;
        let object = api.get(&format!("{SERVICES}/udp")).await?;
        let node_port = object["spec"]["ports"][0]["nodePort"]
            .as_u64()
            .context("a node port")?;
        let (by_service, by_node_port) =
            (format!("{address}:53"), format!("127.0.0.1:{node_port}"));

        let client_pod = json!({"metadata": {"name": "client"}, "spec": {"containers": [{}]}});
        let client_pid = pod(&api, PODS, client_pod, &mark).await?;
        let clients = [UdpClient::new(None)?, UdpClient::new(Some(client_pid))?];
        let by_node = UdpClient::new(None)?;
        // Nobody is there: refused at once, over UDP and TCP, from the machine and from a pod.
        for client in &clients {
            let began = tokio::time::Instant::now();
            let error = client.answer(&by_service).expect_err("nobody is there");
            ensure!(is_refusal(&error), "{error}");
            ensure!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        }
        let began = tokio::time::Instant::now();
        ensure!(connect(client_pid, &format!("{address}:80"), AT_ONCE * 2).is_err());
        ensure!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        // Keeps a connection of the node port that is translated nowhere.
        let _ = by_node.ask(&by_node_port, ONE_TRY);

        let first = member(&api, "first", &mark).await?;
        let servers = [
            UdpServer::start(first, 5353, "first")?,
            UdpServer::start(first, 5354, "first-more")?,
        ];
        for client in &clients {
            reaches(client, &by_service, &["first"]).await?;
            reaches(client, &format!("{address}:54"), &["first-more"]).await?;
        }
        reaches(&by_node, &by_node_port, &["first"]).await?;
        // The pod itself by way of its Service sees another's address, or it would answer itself.
        let own = UdpClient::new(Some(first))?;
        reaches(&own, &by_service, &["first"]).await?;

        // The first goes, the second comes: clients that go on sending from the same port follow.
        let second = member(&api, "second", &mark).await?;
        let _more = UdpServer::start(second, 5353, "second")?;
        api.delete(&format!("{PODS}/first")).await?;
        drop(servers);
        for client in &clients {
            reaches(client, &by_service, &["second"]).await?;
        }
        reaches(&by_node, &by_node_port, &["second"]).await?;
        api.delete(&format!("{PODS}/second")).await?;
        until("nobody to answer", SETTLE_MAX, || async {
            let answer = clients[1].ask(&by_service, ONE_TRY);
            let refused = answer.as_ref().is_err_and(is_refusal);
            ensure!(refused, "{answer:?}");
            Ok(Some(()))
        })
        .await?;
        instance.stop().await
    });
}

/// In a pod the answer of the network; on the machine itself the packet filter, which does not let the datagram go.
fn is_refusal(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::PermissionDenied
    )
}

/// Waits until a client, which sends from one port, is answered by one of these.
async fn reaches(client: &UdpClient, to: &str, names: &[&str]) -> anyhow::Result<()> {
    until(
        &format!("{names:?} to answer at {to}"),
        SETTLE_MAX,
        || async {
            let answer = client.ask(to, ONE_TRY)?;
            let name = answer.split(' ').next().unwrap_or_default();
            ensure!(names.contains(&name), "{answer}");
            Ok(Some(()))
        },
    )
    .await
}

#[test]
fn clients_stay_for_as_long_as_the_service_says() {
    run(async {
        let (instance, api) = start().await?;
        let mark = format!("{}-{}", std::process::id(), instance.ready.pid);
        let ports = json!([{"name": "names", "port": 53, "targetPort": 5353, "protocol": "UDP"}]);
        let spec = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 3}}, "ports": ports});
        api.create(SERVICES, &service("sticky", &spec)).await?;
        let spec = json!({"ports": ports});
        api.create(SERVICES, &service("turns", &spec)).await?;
        let mut servers = Vec::new();
        let mut addresses = Vec::new();
        for name in ["one", "two", "three"] {
            let pid = member(&api, name, &mark).await?;
            servers.push(UdpServer::start(pid, 5353, name)?);
            let pod = api.get(&format!("{PODS}/{name}")).await?;
            addresses.push(
                pod["status"]["podIP"]
                    .as_str()
                    .context("an address")?
                    .to_owned(),
            );
        }
        // Endpoints of both kinds, by hand.
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|one| json!({"addresses": [one]}))
            .collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "turns-1", "labels": {"kubernetes.io/service-name": "turns"}},
            "ports": [{"name": "names", "port": 5353, "protocol": "UDP"}], "endpoints": endpoints
        });
        api.create(SLICES, &slice).await?;
        let by_ip: Vec<Value> = addresses.iter().map(|one| json!({"ip": one})).collect();
        let subset = json!({"addresses": by_ip, "ports": [{"name": "names", "port": 5353, "protocol": "UDP"}]});
        let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "sticky"}, "subsets": [subset]});
        api.create("/api/v1/namespaces/default/endpoints", &endpoints)
            .await?;

        let turns = format!(
            "{}:53",
            cluster_ip(&api, &format!("{SERVICES}/turns")).await?
        );
        let sticky = format!(
            "{}:53",
            cluster_ip(&api, &format!("{SERVICES}/sticky")).await?
        );
        let all = ["one", "two", "three"];
        reaches(&UdpClient::new(None)?, &turns, &all).await?;
        reaches(&UdpClient::new(None)?, &sticky, &all).await?;
        // A new port each time is a new connection of the same client. Forty times the same of three by chance: never.
        let ask = |to: &str| -> anyhow::Result<BTreeSet<String>> {
            let answers = (0..40).map(|_| Ok(UdpClient::new(None)?.answer(to)?));
            answers.collect()
        };
        ensure!(ask(&turns)?.len() > 1, "endpoints take turns");
        let stays = ask(&sticky)?;
        ensure!(stays.len() == 1, "a client stays: {stays:?}");
        // Each connection renews the time; after a pause that is longer a client begins anew, in the end elsewhere.
        until("another endpoint after the timeout", READY_MAX, || async {
            tokio::time::sleep(Duration::from_millis(3_200)).await;
            Ok(
                (UdpClient::new(None)?.answer(&sticky)? != *stays.first().context("an answer")?)
                    .then_some(()),
            )
        })
        .await?;
        instance.stop().await
    });
}
