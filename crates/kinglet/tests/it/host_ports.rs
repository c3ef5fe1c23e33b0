//! Ports of the machine that lead to pods.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use kinglet_testkit::{Api, until, web};
use serde_json::{Value, json};

use crate::datagrams::pod;
use crate::inside::{UdpClient, UdpServer, opens};
use crate::{READY_MAX, run, start};

const PODS: &str = "/api/v1/namespaces/agents/pods";
const ONE_TRY: Duration = Duration::from_millis(200);

fn with_ports(name: &str, ports: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"ports": ports}]}})
}

/// A port that nothing listens on at this moment.
fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

#[test]
fn host_ports_lead_to_one_pod() {
    run(async {
        let (instance, api) = start().await?;
        let mark = format!("{}-{}", std::process::id(), instance.ready.pid);
        let labels = json!({"pod-security.kubernetes.io/enforce": "privileged"});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "agents", "labels": labels}});
        api.create("/api/v1/namespaces", &namespace).await?;
        until("the namespace is ready for Pods", READY_MAX, || {
            api.find("/api/v1/namespaces/agents/serviceaccounts/default")
        })
        .await?;
        let (tcp, udp) = (free_port()?, free_port()?);
        let ports = json!([
            {"containerPort": 8080, "hostPort": tcp},
            {"containerPort": 5353, "hostPort": udp, "protocol": "UDP"}
        ]);
        refused_by_default(&api, &ports).await?;

        let first = pod(&api, PODS, with_ports("first", &ports), &mark).await?;
        let at = format!("127.0.0.1:{tcp}");
        answers(&at).await?;
        ensure!(
            std::net::TcpListener::bind(&at).is_err(),
            "a program took the port of a pod"
        );
        let _server = UdpServer::start(first, 5353, "first")?;
        let client = UdpClient::new(None)?;
        until("UDP by host port", READY_MAX, || async {
            let answer = client.ask(&format!("127.0.0.1:{udp}"), ONE_TRY)?;
            Ok(answer.starts_with("first ").then_some(()))
        })
        .await?;
        // Agents are found by `status.hostIP`, also by themselves.
        let object = api.get(&format!("{PODS}/first")).await?;
        let host = object["status"]["hostIP"].as_str().context("hostIP")?;
        let other = pod(&api, PODS, with_ports("other", &json!([])), &mark).await?;
        for pid in [other, first] {
            ensure!(opens(pid, host, tcp), "{host}:{tcp} from a pod");
        }
        ensure!(opens(other, host, 80), "the gateway is still there");

        // One that no scheduler has looked at is rejected, as a kubelet does it.
        let mut bound = with_ports("bound", &json!([{"containerPort": 8080, "hostPort": tcp}]));
        bound["spec"]["nodeName"] = object["spec"]["nodeName"].clone();
        bound["spec"]["containers"][0]["name"] = json!("c");
        bound["spec"]["containers"][0]["image"] = json!("samples.kinglet/helloworld");
        api.create(PODS, &bound).await?;
        until("the bound pod to be rejected", READY_MAX, || async {
            let status = api.get(&format!("{PODS}/bound")).await?["status"].take();
            ensure!(
                status["phase"] == "Failed"
                    && status["reason"] == "NodePorts"
                    && status["message"] == "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
                "{status}"
            );
            Ok(Some(()))
        })
        .await?;
        answers(&at).await?;
        api.delete(&format!("{PODS}/bound")).await?;

        // The next one waits, in the scheduler's words, and comes when the port is free.
        let mut second = with_ports("second", &json!([{"containerPort": 8080, "hostPort": tcp}]));
        second["apiVersion"] = json!("v1");
        second["kind"] = json!("Pod");
        second["spec"]["containers"][0]["name"] = json!("c");
        second["spec"]["containers"][0]["image"] = json!("samples.kinglet/helloworld");
        second["spec"]["containers"][0]["env"] = json!([{"name": "PORT", "value": "8080"}]);
        api.create(PODS, &second).await?;
        let words = "node(s) didn't have free ports for the requested pod ports";
        until("the second pod to be told", READY_MAX, || async {
            let pod = api.get(&format!("{PODS}/second")).await?;
            let told = pod["status"].to_string();
            Ok((pod["status"]["phase"] == "Pending" && told.contains(words)).then_some(()))
        })
        .await?;
        api.delete(&format!("{PODS}/first")).await?;
        until("the second pod to run", READY_MAX, || async {
            let pod = api.get(&format!("{PODS}/second")).await?;
            ensure!(pod["status"]["phase"] == "Running", "{}", pod["status"]);
            Ok(Some(()))
        })
        .await?;
        answers(&at).await?;
        instance.stop().await
    });
}

/// Namespaces enforce `baseline` unless labelled.
async fn refused_by_default(api: &Api, ports: &Value) -> anyhow::Result<()> {
    let mut object = with_ports("refused", ports);
    object["spec"]["containers"][0]["name"] = json!("c");
    object["spec"]["containers"][0]["image"] = json!("samples.kinglet/helloworld");
    let error = api
        .create("/api/v1/namespaces/default/pods", &object)
        .await
        .err()
        .context("refused")?;
    let error = format!("{error:#}");
    ensure!(
        error.contains("hostPort") && error.contains("baseline"),
        "{error}"
    );
    Ok(())
}

async fn answers(at: &str) -> anyhow::Result<()> {
    until(&format!("{at} to answer"), READY_MAX, || async {
        let answer = web::get(at, "host", "/").await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(Some(()))
    })
    .await
}
