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
    world.handle.log_requests(Some(entries));
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
    world.handle.log_requests(None);
    get(world.external, "one.test", "/").await;
    assert!(within(log.recv()).await.is_none());
}
