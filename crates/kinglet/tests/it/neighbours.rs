//! Two instances side by side do not touch each other, and the living clear up after the dead.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::footprint::Footprint;
use kinglet_testkit::{Api, Instance, instance, web};
use serde_json::{Value, json};

use crate::datagrams::pod;
use crate::inside::{UdpClient, opens};
use crate::services::cluster_ip;
use crate::{READY_MAX, run, start};

#[test]
fn one_crashing_does_not_touch_the_other() {
    run(async {
        let (mut first, first_api) = start().await?;
        let (second, second_api) = start().await?;
        for api in [&first_api, &second_api] {
            let services = serving("default", "services");
            api.create(&services, &sample_service("hello", "default", "helloworld"))
                .await?;
            api.condition(&format!("{services}/hello"), "Ready", "True", READY_MAX)
                .await?;
        }
        first.kill();
        let again = kinglet_testkit::Setup {
            data: Some(first.data.clone()),
            ..crate::setup()
        }
        .start()
        .await?;
        for instance in [&second, &again] {
            let answer = web::get(instance.gateway(), "hello.default.localhost", "/").await?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        again.stop().await?;
        let answer = web::get(second.gateway(), "hello.default.localhost", "/").await?;
        ensure!(answer.status == 200, "{answer:?}");
        second.stop().await
    });
}

const ONE_TRY: Duration = Duration::from_millis(500);

/// What an instance shows its own pods.
struct Side {
    pid: u32,
    pod: String,
    gateway: String,
    service: String,
    node_port: u16,
}

async fn side(instance: &Instance, api: &Api) -> anyhow::Result<Side> {
    let mark = format!("{}-{}", std::process::id(), instance.ready.pid);
    let pods = "/api/v1/namespaces/default/pods";
    let services = "/api/v1/namespaces/default/services";
    let spec = json!({"containers": [{"ports": [{"containerPort": 8080}]}]});
    let object = json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": spec});
    let pid = pod(api, pods, object, &mark).await?;
    let ports = json!([{"port": 80, "targetPort": 8080}]);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": ports}});
    let service = api.create(services, &service).await?;
    let object = api.get(&format!("{pods}/web")).await?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let address = cluster_ip(api, &format!("{services}/web")).await?;
    let side = Side {
        pid,
        pod: text(&object["status"]["podIP"]).context("podIP")?,
        gateway: text(&object["status"]["hostIP"]).context("hostIP")?,
        service: address,
        node_port: u16::try_from(
            service["spec"]["ports"][0]["nodePort"]
                .as_u64()
                .context("a node port")?,
        )?,
    };
    kinglet_testkit::until("the Service answers", READY_MAX, || async {
        Ok(opens(side.pid, &side.service, 80).then_some(()))
    })
    .await?;
    Ok(side)
}

#[test]
fn pods_of_two_instances_do_not_meet() {
    run(async {
        let (first, first_api) = start().await?;
        let (second, second_api) = start().await?;
        let one = side(&first, &first_api).await?;
        let other = side(&second, &second_api).await?;
        ensure!(
            one.service.rsplit_once('.') != other.service.rsplit_once('.'),
            "one range for two"
        );
        for (from, to) in [(&one, &other), (&other, &one)] {
            // The same ways lead to the own side.
            for (address, port) in [
                (&from.pod, 8080),
                (&from.service, 80),
                (&from.gateway, 80),
                (&from.gateway, 53),
            ] {
                ensure!(
                    opens(from.pid, address, port),
                    "{address}:{port} of the own side"
                );
            }
            for (address, port) in [
                (to.pod.as_str(), 8080),
                (&to.service, 80),
                (&to.gateway, 80),
                (&to.gateway, 53),
                (&to.gateway, to.node_port),
            ] {
                ensure!(
                    !opens(from.pid, address, port),
                    "{address}:{port} of the other side"
                );
            }
            // The kernel limits how often it says so.
            kinglet_testkit::until(
                "the other side's names to be refused",
                READY_MAX,
                || async {
                    let names = UdpClient::new(Some(from.pid))?;
                    let answer = names.ask(&format!("{}:53", to.gateway), ONE_TRY);
                    let refused = std::io::ErrorKind::ConnectionRefused;
                    ensure!(
                        answer.as_ref().is_err_and(|error| error.kind() == refused),
                        "{answer:?}"
                    );
                    Ok(Some(()))
                },
            )
            .await?;
        }
        second.stop().await?;
        ensure!(
            opens(one.pid, &one.service, 80),
            "what the other took away was its own"
        );
        first.stop().await
    });
}

#[test]
fn a_start_clears_what_a_killed_instance_left() {
    run(async {
        let data = instance::scratch("killed");
        let setup = kinglet_testkit::Setup {
            data: Some(data.clone()),
            ..crate::setup()
        };
        let mut killed = setup.start().await?;
        let api = Api::open(killed.ready.kubeconfig.as_ref()).await?;
        side(&killed, &api).await?;
        killed.kill();
        let left = Footprint::of_stopped(&data);
        ensure!(
            !left.links.is_empty() && !left.cgroups.is_empty() && !left.mounts.is_empty(),
            "{left:?}"
        );
        // Nobody starts it again: another instance does what its next start would have done, but for its files.
        let living = crate::setup().start().await?;
        let left = Footprint::of_stopped(&data);
        ensure!(left.left_behind().is_empty(), "{left:?}");
        ensure!(left.disk_kb > 0, "its files are its owner's");
        // And it does so to nobody who lives: the next start leaves this one alone.
        let api = Api::open(living.ready.kubeconfig.as_ref()).await?;
        let own = side(&living, &api).await?;
        let again = setup.start().await?;
        ensure!(opens(own.pid, &own.service, 80));
        again.stop().await?;
        living.stop().await?;
        std::fs::remove_dir_all(&data)?;
        Ok(())
    });
}
