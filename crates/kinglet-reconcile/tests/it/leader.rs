//! Leadership of two replicas over one API server that hangs for one of them now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kinglet_process::Tasks;
use kinglet_process::clock::Clock;
use kinglet_reconcile::{Buckets, Caches, Context, Controller, Key, Leadership, Next};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Answer, event, listed, map};

/// Enough of an API server for Leases, and for a controller of ConfigMaps.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    /// Replicas that hear nothing: whether their calls still arrive.
    hung: BTreeMap<&'static str, bool>,
    created: u32,
}

impl Server {
    fn client(&self, replica: &'static str) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let hung = server.0.lock().hung.get(replica).copied();
                if hung == Some(false) {
                    std::future::pending::<()>().await;
                }
                let answer = server.answer(&parts.method, parts.uri.path(), &body);
                if hung.is_some() {
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> Response<Answer> {
        let mut state = self.0.lock();
        let whole = |code: u16, body: Value| {
            let data = Some(body.to_string().into());
            let answer = Answer { data, open: false };
            Response::builder().status(code).body(answer).unwrap()
        };
        let failed = |code: u16, reason: &str| {
            whole(
                code,
                json!({"kind": "Status", "code": code, "reason": reason, "message": reason}),
            )
        };
        if path.ends_with("/configmaps") && method == Method::GET {
            let lines = [event("ADDED", map("x", 1, "one")), listed(3)];
            let data = lines
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>();
            return Response::new(Answer {
                data: Some(data.into()),
                open: true,
            });
        }
        let mut object: Value = serde_json::from_slice(body).unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or("").to_owned();
        state.version += 1;
        let version = state.version.to_string();
        match *method {
            Method::GET => match state.objects.get(path) {
                Some(found) => whole(200, found.clone()),
                None => failed(404, "NotFound"),
            },
            Method::POST => {
                let path = format!("{path}/{name}");
                if state.objects.contains_key(&path) {
                    return failed(409, "AlreadyExists");
                }
                if path.contains("/configmaps/") {
                    state.created += 1;
                }
                object["metadata"]["uid"] = json!(version);
                object["metadata"]["resourceVersion"] = json!(version);
                state.objects.insert(path, object.clone());
                whole(201, object)
            }
            _ => {
                let known = state.objects.get(path).cloned().unwrap_or_default();
                if known["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                    return failed(409, "Conflict");
                }
                object["metadata"]["resourceVersion"] = json!(version);
                state.objects.insert(path.to_owned(), object.clone());
                whole(200, object)
            }
        }
    }

    fn hang(&self, replica: &'static str, calls_arrive: bool) {
        self.0.lock().hung.insert(replica, calls_arrive);
    }

    fn recover(&self, replica: &'static str) {
        self.0.lock().hung.remove(replica);
    }
}

struct Replica {
    tasks: Tasks,
    context: Context,
    leadership: Leadership,
}

fn replica(server: &Server, name: &'static str, buckets: usize) -> Replica {
    let tasks = Tasks::new();
    let caches = Caches::new(server.client(name), tasks.clone(), Clock::system());
    let context = Context::new(&caches);
    let buckets = Buckets::of_autoscaler("knative-serving", buckets, name);
    let leadership = Leadership::campaign(&context, buckets);
    let context = context.led_by(leadership.clone());
    Replica {
        tasks,
        context,
        leadership,
    }
}

fn key() -> Key {
    Key::new("a", "x")
}

async fn until(what: &str, limit: u64, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(limit), "{what}");
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_loses_leadership_before_another_replica_gains_it() {
    for calls_arrive in [false, true] {
        let server = Server::default();
        let a = replica(&server, "a", 1);
        until("a leads", 5, || a.leadership.owns(&key())).await;
        let b = replica(&server, "b", 1);
        sleep(Duration::from_secs(35)).await;
        assert!(a.leadership.owns(&key()) && !b.leadership.owns(&key()));

        server.hang("a", calls_arrive);
        let hung = Instant::now();
        let (mut lost, mut gained) = (None, None);
        while gained.is_none() {
            assert!(hung.elapsed() < Duration::from_secs(200), "nobody leads");
            let owners = (a.leadership.owns(&key()), b.leadership.owns(&key()));
            assert_ne!(owners, (true, true), "both lead after {:?}", hung.elapsed());
            if !owners.0 {
                lost.get_or_insert(hung.elapsed());
            }
            if owners.1 {
                gained = Some(hung.elapsed());
            }
            sleep(Duration::from_millis(100)).await;
            if hung.elapsed() > Duration::from_secs(100) {
                // Calls that arrive although no answer comes keep the Lease; one day the process is ended.
                server.hang("a", false);
            }
        }
        assert!(lost.unwrap() <= Duration::from_secs(41), "{lost:?}");
        if !calls_arrive {
            assert!(gained.unwrap() <= Duration::from_secs(81), "{gained:?}");
        }
        server.recover("a");
        sleep(Duration::from_secs(60)).await;
        assert!(!a.leadership.owns(&key()) && b.leadership.owns(&key()));
        a.tasks.cancel();
        b.tasks.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn every_key_has_one_owner_whatever_hangs() {
    for seed in 1..20_u64 {
        let server = Server::default();
        let replicas = ["a", "b"].map(|name| (name, replica(&server, name, 3)));
        let keys: Vec<Key> = (0..30)
            .map(|number| Key::new("a", format!("k{number}").as_str()))
            .collect();
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut seen = BTreeSet::new();
        for second in 0..900_u32 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // The last 200 seconds everything answers.
            let (name, _) = &replicas[usize::from(random.is_multiple_of(2))];
            match random >> 32 {
                _ if second >= 700 => {
                    server.recover("a");
                    server.recover("b");
                }
                choice if choice.is_multiple_of(40) => server.hang(name, true),
                choice if choice.is_multiple_of(41) => server.hang(name, false),
                choice if choice.is_multiple_of(43) => server.recover(name),
                _ => {}
            }
            sleep(Duration::from_secs(1)).await;
            for key in &keys {
                let owners: Vec<&str> = replicas
                    .iter()
                    .filter(|(_, replica)| replica.leadership.owns(key))
                    .map(|(name, _)| *name)
                    .collect();
                assert!(owners.len() <= 1, "seed {seed}, second {second}: {key}");
                seen.extend(owners.iter().copied());
                assert!(
                    second < 899 || owners.len() == 1,
                    "seed {seed}: nobody leads {key}"
                );
            }
        }
        assert!(!seen.is_empty());
        for (_, replica) in &replicas {
            replica.tasks.cancel();
        }
    }
}

/// Tries to create a ConfigMap at each reconcile; the first one loses leadership before it writes.
fn controller(replica: &Replica, loses: bool) -> (Arc<AtomicU32>, Arc<AtomicU32>) {
    let (runs, refused) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counts = (Arc::clone(&runs), Arc::clone(&refused));
    Controller::<ConfigMap>::new("test")
        .deadline(Duration::from_secs(600))
        .run(&replica.context, move |context, key| {
            let (runs, refused) = counts.clone();
            async move {
                if *key.name != *"x" {
                    return Ok(Next::Done);
                }
                let first = runs.fetch_add(1, Ordering::SeqCst) == 0;
                while loses && first && context.leadership().owns(&key) {
                    sleep(Duration::from_secs(1)).await;
                }
                let made: ConfigMap = serde_json::from_value(map("made", 0, "new")).unwrap();
                let outcome = context.create(&made).await;
                if outcome.as_ref().is_err_and(|error| error.is_not_leading()) {
                    refused.fetch_add(1, Ordering::SeqCst);
                }
                outcome.map(|_| Next::Done)
            }
        });
    (runs, refused)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_once_leadership_is_lost_and_a_gain_brings_the_key_back() {
    let server = Server::default();
    let a = replica(&server, "a", 1);
    let (runs, refused) = controller(&a, true);
    until("the key is worked on", 30, || {
        runs.load(Ordering::SeqCst) == 1
    })
    .await;
    server.hang("a", false);
    until("the first run is over", 60, || {
        refused.load(Ordering::SeqCst) == 1
    })
    .await;
    assert_eq!(server.0.lock().created, 0);
    server.recover("a");
    until("the key comes back", 60, || server.0.lock().created == 1).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_given_back_at_the_end_and_the_next_replica_looks_at_every_key() {
    let server = Server::default();
    let a = replica(&server, "a", 1);
    until("a leads", 5, || a.leadership.owns(&key())).await;
    let b = replica(&server, "b", 1);
    let (runs, _) = controller(&b, false);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 0, "b does not lead");
    assert!(a.tasks.shutdown(Duration::from_secs(5)).await);
    assert!(!a.leadership.owns(&key()));
    until("b takes over", 12, || runs.load(Ordering::SeqCst) == 1).await;
}
