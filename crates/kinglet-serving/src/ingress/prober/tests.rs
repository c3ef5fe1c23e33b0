//! What answers mean, and the prober against gateways of the test, in paused time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use kinglet_process::Tasks;
use kinglet_process::clock::Clock;
use kinglet_reconcile::Caches;
use tokio::sync::watch;

use super::super::gateways::ProbeGateway;
use super::*;

#[test]
fn what_an_answer_means() {
    let status = |code, hash: Option<&str>| ProbeAnswer::Status {
        code,
        hash: hash.map(str::to_owned),
    };
    let ready = [
        status(200, Some("h")),
        status(200, None),
        // Something in front of the Revision answers: a login, a redirect, a limit.
        status(401, None),
        status(403, Some("other")),
        status(301, None),
        status(429, None),
        status(500, None),
        status(502, None),
    ];
    for answer in ready {
        assert_eq!(verdict(&answer, "h"), Ok(()), "{answer:?}");
    }
    let retry = [
        (status(200, Some("other")), "it serves another version"),
        (status(200, Some("")), "it serves another version"),
        (status(404, Some("h")), "it answers with 404"),
        (status(404, None), "it answers with 404"),
        (status(503, None), "it answers with 503"),
        (ProbeAnswer::Unreachable("refused".to_owned()), "refused"),
    ];
    for (answer, words) in retry {
        assert_eq!(verdict(&answer, "h"), Err(words.to_owned()), "{answer:?}");
    }
}

/// Gateways that answer with the hash that the test gave them; without one, never.
#[derive(Default)]
struct Fleet {
    hashes: Mutex<BTreeMap<SocketAddr, String>>,
    asked: Mutex<Vec<(SocketAddr, String)>>,
    at_once: Mutex<(usize, usize)>,
    slow: bool,
}

impl ProbeGateway for Fleet {
    fn probe<'a>(&'a self, at: SocketAddr, host: &'a str, _: bool) -> BoxFuture<'a, ProbeAnswer> {
        async move {
            self.asked.lock().push((at, host.to_owned()));
            {
                let mut at_once = self.at_once.lock();
                at_once.0 += 1;
                at_once.1 = at_once.1.max(at_once.0);
            }
            if self.slow {
                tokio::time::sleep(PROBE_TIMEOUT / 2).await;
            }
            self.at_once.lock().0 -= 1;
            let hash = self.hashes.lock().get(&at).cloned();
            match hash {
                Some(hash) => ProbeAnswer::Status {
                    code: 200,
                    hash: Some(hash),
                },
                None => std::future::pending().await,
            }
        }
        .boxed()
    }
}

struct World {
    fleet: Arc<Fleet>,
    addresses: watch::Sender<BTreeSet<SocketAddr>>,
    prober: Prober,
    queue: Queue,
    tasks: Tasks,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

fn gateway(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8081))
}

impl World {
    fn with(gateways: &[u8], fleet: Fleet) -> Self {
        let tasks = Tasks::new();
        let client = kube::Client::new(super::super::tests::Nobody, "default");
        let context = Context::new(&Caches::new(client, tasks.clone(), Clock::system()));
        let all = gateways.iter().map(|number| gateway(*number)).collect();
        let (addresses, addresses_in) = watch::channel(all);
        let (fleet, queue) = (Arc::new(fleet), Queue::default());
        let probed = Probed {
            addresses: addresses_in,
            probe: fleet.clone(),
        };
        let prober = Prober::start(&context, probed, queue.clone());
        Self {
            fleet,
            addresses,
            prober,
            queue,
            tasks,
        }
    }

    fn of(gateways: &[u8]) -> Self {
        Self::with(gateways, Fleet::default())
    }

    fn serves(&self, number: u8, hash: &str) {
        self.fleet
            .hashes
            .lock()
            .insert(gateway(number), hash.to_owned());
    }

    fn standing(&self, hash: &str) -> Standing {
        let targets = ["x.example.com", "x.default"].map(|host| Target {
            host: host.into(),
            tls: false,
        });
        self.prober.standing(&Key::new("a", "x"), hash, &targets)
    }

    fn moved(&self, gateways: &[u8]) {
        self.addresses
            .send_replace(gateways.iter().map(|number| gateway(*number)).collect());
    }

    async fn seconds(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    fn asked(&self) -> usize {
        self.fleet.asked.lock().len()
    }
}

#[tokio::test(start_paused = true)]
async fn ready_when_every_gateway_answers_for_every_host() {
    let world = World::of(&[1, 2]);
    world.serves(1, "new");
    world.serves(2, "old");
    assert_eq!(world.standing("new"), Standing::Asked);
    World::seconds(5).await;
    assert!(world.queue.is_empty());
    let Standing::Stalled(named) = world.standing("new") else {
        panic!("stalled expected")
    };
    assert_eq!(
        named,
        ["10.0.0.2:8081 (x.default: it serves another version)"]
    );
    world.serves(2, "new");
    World::seconds(31).await;
    assert!(!world.queue.is_empty(), "the Ingress is looked at again");
    assert_eq!(world.standing("new"), Standing::Ready);
    let asked = world.asked();
    World::seconds(60).await;
    assert_eq!(world.asked(), asked, "what is ready is not asked again");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_hangs_is_asked_again_after_a_second() {
    let world = World::of(&[1]);
    world.standing("new");
    World::seconds(4).await;
    let Standing::Stalled(named) = world.standing("new") else {
        panic!("stalled expected")
    };
    assert_eq!(named, ["10.0.0.1:8081 (x.default: no answer within 1 s)"]);
    world.serves(1, "new");
    World::seconds(3).await;
    assert_eq!(world.standing("new"), Standing::Ready);
}

#[tokio::test(start_paused = true)]
async fn another_hash_is_another_question() {
    let world = World::of(&[1]);
    world.serves(1, "first");
    world.standing("first");
    World::seconds(1).await;
    assert_eq!(world.standing("first"), Standing::Ready);
    assert_eq!(world.standing("second"), Standing::Asked);
    World::seconds(1).await;
    assert_ne!(world.standing("second"), Standing::Ready);
    world.serves(1, "second");
    World::seconds(5).await;
    assert_eq!(world.standing("second"), Standing::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_leaves_counts_as_done_and_one_that_comes_back_is_not_asked() {
    let world = World::of(&[1, 2]);
    world.serves(1, "new");
    world.standing("new");
    World::seconds(1).await;
    assert_ne!(world.standing("new"), Standing::Ready);
    // Killed before its first answer: the other one decides.
    world.moved(&[1]);
    World::seconds(1).await;
    assert!(!world.queue.is_empty());
    assert_eq!(world.standing("new"), Standing::Ready);
    world.moved(&[1, 2]);
    World::seconds(1).await;
    assert_eq!(world.standing("new"), Standing::Ready);
}

#[tokio::test(start_paused = true)]
async fn gateways_that_replace_all_others_are_asked() {
    let world = World::of(&[1]);
    world.serves(1, "old");
    world.serves(2, "old");
    world.standing("new");
    // Neither has ever answered with the new hash.
    world.moved(&[2]);
    World::seconds(1).await;
    assert_ne!(world.standing("new"), Standing::Ready);
    World::seconds(1).await;
    assert_ne!(world.standing("new"), Standing::Ready);
    world.serves(2, "new");
    World::seconds(31).await;
    assert_eq!(world.standing("new"), Standing::Ready);
}

#[tokio::test(start_paused = true)]
async fn without_any_gateway_nothing_is_ready() {
    let world = World::of(&[]);
    assert_eq!(world.standing("new"), Standing::NoGateways);
    world.serves(1, "new");
    world.moved(&[1]);
    World::seconds(1).await;
    assert!(!world.queue.is_empty(), "there is somebody to ask now");
    assert_eq!(world.standing("new"), Standing::Asked);
    World::seconds(1).await;
    assert_eq!(world.standing("new"), Standing::Ready);
    // The last one leaves while it is asked: nobody serves it.
    world.standing("newer");
    world.moved(&[]);
    World::seconds(1).await;
    assert_eq!(world.standing("newer"), Standing::NoGateways);
}

#[tokio::test(start_paused = true)]
async fn probes_are_few_at_once_and_few_per_second() {
    let world = World::with(
        &[1, 2],
        Fleet {
            slow: true,
            ..Fleet::default()
        },
    );
    world.serves(1, "old");
    world.serves(2, "old");
    for at in 0..500 {
        let targets = [Target {
            host: format!("x{at}.example.com").into(),
            tls: false,
        }];
        let key = Key::new("a", format!("x{at}"));
        world.prober.standing(&key, "new", &targets);
    }
    World::seconds(10).await;
    assert_eq!(world.fleet.at_once.lock().1, WORKERS);
    let asked = world.asked();
    assert!(asked > 100, "{asked}");
    assert!(asked <= 100 + 50 * 10, "{asked}");
    for at in 0..500 {
        world.prober.forget(&Key::new("a", format!("x{at}")));
    }
    World::seconds(1).await;
    let asked = world.asked();
    World::seconds(60).await;
    assert_eq!(
        world.asked(),
        asked,
        "nothing is left of Ingresses that are gone"
    );
}
