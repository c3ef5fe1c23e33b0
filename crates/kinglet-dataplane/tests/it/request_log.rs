//! Entries for the log of a pod's queue-proxy.

use http::Request;
use tokio::sync::mpsc;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn each_request_that_reaches_a_pod_has_an_entry() {
    let mut world = World::start().await;
    let address = says("hello").await;
    world.one(backend("one", &[address])).await;
    get(world.external, "one.test", "/before").await;
    let (entries, mut log) = mpsc::channel(8);
    world.handle.log_requests(Some(entries), false);
    let request = Request::post("/a?b=c")
        .header("host", "one.test")
        .header("user-agent", "test/1")
        .body(full("body"))
        .unwrap();
    collect(H1::to(world.external).await.send(request).await).await;
    let entry = within(log.recv()).await.unwrap();
    assert_eq!(
        (
            entry.method.as_str(),
            entry.target.as_str(),
            entry.host.as_str()
        ),
        ("POST", "/a?b=c", "one.test")
    );
    assert_eq!((entry.status, entry.response_bytes), (200, 5));
    assert_eq!(entry.revision, kinglet_decide::feed::Key::new("ns", "one"));
    assert_eq!(entry.pod.1, address);
    assert_eq!(entry.headers["user-agent"], "test/1");
    assert!(entry.remote.ip().is_loopback());

    // One that breaks off is logged with the status that the client saw.
    let listener = listen().await;
    let broken = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
        }
    });
    world.one(backend("one", &[broken])).await;
    assert_eq!(get(world.external, "one.test", "/").await.status, 502);
    assert_eq!(within(log.recv()).await.unwrap().status, 502);

    // Who reaches no pod is in no pod's log; nor is anybody once it is switched off.
    get(world.external, "nobody.test", "/").await;
    world.handle.log_requests(None, false);
    get(world.external, "one.test", "/").await;
    assert!(within(log.recv()).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_have_an_entry_where_that_is_asked_for() {
    let mut world = World::start().await;
    let address = says("hello").await;
    world.one(backend("one", &[address])).await;
    let (entries, mut log) = mpsc::channel(8);
    let probe = |gateway, value: &'static str| async move {
        let request = Request::get("/healthz")
            .header("host", "one.test")
            .header("k-network-probe", value)
            .header("k-network-hash", "override")
            .body(empty())
            .unwrap();
        let response = H1::to(gateway).await.send(request).await;
        collect(response).await.status.as_u16()
    };
    world.handle.log_requests(Some(entries.clone()), false);
    assert_eq!(probe(world.external, "probe").await, 200);
    get(world.external, "one.test", "/request").await;
    assert_eq!(within(log.recv()).await.unwrap().target, "/request");

    world.handle.log_requests(Some(entries), true);
    for (value, status) in [("probe", 200), ("nonsense", 400)] {
        assert_eq!(probe(world.external, value).await, status);
        let entry = within(log.recv()).await.unwrap();
        assert_eq!((entry.target.as_str(), entry.status), ("/healthz", status));
        assert_eq!(entry.pod.1, address);
    }

    // Without a pod the activator answers, whose log is not a pod's.
    world.revision(backend("one", &[])).await;
    world.settle().await;
    assert_eq!(probe(world.external, "probe").await, 200);
    world.handle.log_requests(None, true);
    assert!(within(log.recv()).await.is_none());
}
