//! A probe against a real gateway, plain and over TLS.

use kinglet_dataplane::{GatewayAnswer, GatewayProber, Listener};

use crate::https::{certificate, shown};
use crate::world::{World, backend, listen, mirror, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_answers_with_the_hash_of_what_it_serves() {
    let mut world = World::start().await;
    world.one(backend("one", &[mirror().await])).await;
    let prober = GatewayProber::new().unwrap();
    let serves = GatewayAnswer {
        status: 200,
        hash: Some("ourhash".to_owned()),
    };
    let answer = within(prober.ask(world.external, "one.test", false)).await;
    assert_eq!(answer.as_ref(), Ok(&serves));
    let answer = within(prober.ask(world.external, "nobody.test", false)).await;
    assert_eq!(
        (answer.clone().unwrap().status, answer.unwrap().hash),
        (404, None)
    );

    // Any certificate will do, also one that nobody has signed.
    let one = certificate("one", &["one.test"]);
    world.route(vec![shown("one.test", &one)]).await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    world
        .handle
        .serve_tls(listener, Listener::External)
        .unwrap();
    let answer = within(prober.ask(address, "one.test", true)).await;
    assert_eq!(answer, Ok(serves));
    let answer = within(prober.ask(address, "one.test", false)).await;
    assert!(answer.is_err(), "plain to a TLS listener: {answer:?}");
}

#[tokio::test]
async fn nobody_there_is_said_in_words() {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let answer = within(
        GatewayProber::new()
            .unwrap()
            .ask(address, "one.test", false),
    )
    .await;
    assert!(answer.unwrap_err().contains("refused"));
}
