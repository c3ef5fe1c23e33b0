//! Service addresses as pods and the host meet them: endpoints, no endpoints, and addresses of nobody.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kinglet_node::LogOptions;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{World, until};

const SERVE: &str = "printf hi > /tmp/index.html; exec httpd -f -p 8080 -h /tmp";
/// Nobody waits that long for a refusal; who is not answered at all waits until then.
const PATIENCE: Duration = Duration::from_secs(20);

async fn create(world: &World, collection: &str, object: &Value) {
    let created = world
        .context
        .call(http::Method::POST, collection, Some(object));
    created.await.expect("create");
}

async fn service(world: &World, name: &str) -> Ipv4Addr {
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
    create(world, "/api/v1/namespaces/default/services", &object).await;
    let cache = world.context.cache::<Service>();
    let address = || {
        let spec = cache.get("default", name)?.spec.clone()?;
        spec.cluster_ip?.parse().ok()
    };
    until("the Service is known", || address().is_some()).await;
    address().expect("an address")
}

/// What the host hears at that address: an answer, or why there is none.
async fn ask(address: Ipv4Addr) -> std::io::Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect(SocketAddrV4::new(address, 80)).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let timed_out = |_| Err(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(timed_out)
}

pub(crate) async fn refusals() {
    let world = World::new("services").await;
    let full = service(&world, "full").await;
    let empty = service(&world, "empty").await;
    let [a, b, c, _] = empty.octets();
    let nobodys = Ipv4Addr::new(a, b, c ^ 1, 250);
    world
        .create(
            "web",
            json!({"containers": [{"name": "c", "command": ["sh", "-c", SERVE]}]}),
        )
        .await;
    let pod = world.ready("web").await;
    let address = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.clone())
        .expect("an address");
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "full-1", "labels": {"kubernetes.io/service-name": "full"}},
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": [{"addresses": [address]}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    create(&world, slices, &slice).await;
    let give_up = tokio::time::Instant::now() + PATIENCE;
    loop {
        match ask(full).await {
            Ok(answer) if answer.ends_with("hi") => break,
            other => assert!(tokio::time::Instant::now() < give_up, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // From the host itself.
    for address in [empty, nobodys] {
        let error = ask(address).await.expect_err("nobody is there");
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{address}"
        );
    }
    // From a pod. `nc` says nothing when it waits in vain.
    let script = format!(
        "busybox wget -qO- http://{full}/; echo; for one in {empty} {nobodys}; do nc -w 15 $one 80 </dev/null; done; echo end; sleep 1000"
    );
    world
        .create(
            "asks",
            json!({"containers": [{"name": "c", "command": ["sh", "-c", script]}]}),
        )
        .await;
    world.ready("asks").await;
    let give_up = tokio::time::Instant::now() + 2 * PATIENCE;
    let text = loop {
        let text = world.logs("asks", LogOptions::default()).await;
        if text.contains("end\n") {
            break text;
        }
        assert!(tokio::time::Instant::now() < give_up, "{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(text.contains("hi\n"), "{text}");
    for address in [empty, nobodys] {
        let refused = format!("({address}): Connection refused");
        assert!(text.contains(&refused), "{text}");
    }
    world.close().await;
}
