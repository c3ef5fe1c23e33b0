//! Watching, reconciling and writing against a scripted API server: what a real one does only on bad days.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "a test may panic, and its tables read best as they are"
)]

mod leader;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kinglet_process::Tasks;
use kinglet_process::clock::Clock;
use kinglet_reconcile::{
    Caches, Change, Context, Controller, Key, Next, Plan, Queue, ReconcileError, ResourceKind,
};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// One scripted answer: what the request must look like, and what it gets.
struct Act {
    asked: &'static str,
    status: u16,
    body: String,
    /// A watch stays open after its lines.
    stays_open: bool,
}

#[derive(Clone, Default)]
struct Script {
    acts: Arc<Mutex<VecDeque<Act>>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn then(self, asked: &'static str, status: u16, body: impl ToString) -> Self {
        self.acts.lock().push_back(Act {
            asked,
            status,
            body: body.to_string(),
            stays_open: false,
        });
        self
    }

    fn then_stay(self, asked: &'static str, lines: &[Value]) -> Self {
        let body = lines.iter().map(|line| format!("{line}\n")).collect();
        self.acts.lock().push_back(Act {
            asked,
            status: 200,
            body,
            stays_open: true,
        });
        self
    }

    fn client(&self) -> kube::Client {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            let asked = format!("{} {}", request.method(), request.uri());
            async move { Ok::<_, std::convert::Infallible>(script.answer(asked)) }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, asked: String) -> Response<Answer> {
        let act = {
            let mut acts = self.acts.lock();
            let index = acts
                .iter()
                .position(|act| act.asked.split(" .. ").all(|part| asked.contains(part)));
            index.and_then(|index| acts.remove(index))
        };
        let is_read = asked.starts_with("GET");
        self.log.lock().push(asked);
        match act {
            Some(act) => Response::builder()
                .status(act.status)
                .body(Answer {
                    data: Some(act.body.into()),
                    open: act.stays_open,
                })
                .unwrap(),
            // Off script: a watch hears nothing, a write is refused.
            None if is_read => Response::new(Answer {
                data: None,
                open: true,
            }),
            None => Response::builder()
                .status(500)
                .body(Answer {
                    data: Some("{}".into()),
                    open: false,
                })
                .unwrap(),
        }
    }
}

struct Answer {
    data: Option<bytes::Bytes>,
    open: bool,
}

impl http_body::Body for Answer {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        match self.data.take() {
            Some(data) => std::task::Poll::Ready(Some(Ok(http_body::Frame::data(data)))),
            None if self.open => std::task::Poll::Pending,
            None => std::task::Poll::Ready(None),
        }
    }
}

fn map(name: &str, version: u64, data: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "a", "uid": format!("{name}-uid"), "resourceVersion": version.to_string()}, "data": {"k": data}})
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn listed(version: u64) -> Value {
    json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}})
}

fn caches(script: &Script) -> Caches {
    Caches::new(script.client(), Tasks::new(), Clock::system())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("it happens within its time")
}

async fn await_value(caches: &Caches, name: &str, wanted: Option<&str>) {
    let mut changes = caches.cache::<ConfigMap>().subscribe();
    within(async {
        loop {
            let seen = caches.cache::<ConfigMap>().get("a", name);
            if seen
                .and_then(|map| map.data.clone()?.remove("k"))
                .as_deref()
                == wanted
            {
                return;
            }
            changes.recv().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_version_too_old_leads_to_a_listing_that_finds_what_changed() {
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}});
    let script = Script::default()
        .then(
            "sendInitialEvents",
            200,
            [
                event("ADDED", map("x", 1, "one")),
                event("ADDED", map("y", 2, "one")),
                listed(3),
                gone,
            ]
            .map(|line| format!("{line}\n"))
            .concat(),
        )
        .then_stay(
            "sendInitialEvents",
            &[event("ADDED", map("x", 7, "two")), listed(9)],
        );
    let caches = caches(&script);
    await_value(&caches, "x", Some("two")).await;
    await_value(&caches, "y", None).await;
}

/// The other side is gone, but no packet says so: the bookmarks that miss do.
#[tokio::test(start_paused = true)]
async fn a_connection_that_only_looks_open_is_given_up_after_three_bookmarks() {
    let script = Script::default()
        .then_stay(
            "sendInitialEvents",
            &[event("ADDED", map("x", 1, "one")), listed(3)],
        )
        .then_stay(
            "resourceVersion=3",
            &[event("MODIFIED", map("x", 4, "two"))],
        );
    let began = tokio::time::Instant::now();
    let caches = caches(&script);
    let cache = caches.cache::<ConfigMap>();
    let mut changes = cache.subscribe();
    let moved = || {
        let seen = cache.get("a", "x");
        seen.and_then(|map| map.data.clone()?.remove("k"))
            .as_deref()
            == Some("two")
    };
    while !moved() {
        tokio::time::timeout(Duration::from_secs(400), changes.recv())
            .await
            .expect("the watch is opened again");
    }
    assert!(
        began.elapsed() >= Duration::from_secs(180),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_goes_on_where_it_broke() {
    let script = Script::default()
        .then(
            "sendInitialEvents",
            200,
            [event("ADDED", map("x", 1, "one")), listed(3)]
                .map(|line| format!("{line}\n"))
                .concat(),
        )
        .then("resourceVersion=3", 503, "{}")
        .then_stay(
            "resourceVersion=3",
            &[event("MODIFIED", map("x", 5, "two"))],
        );
    let caches = caches(&script);
    await_value(&caches, "x", Some("two")).await;
    assert_eq!(
        script
            .log
            .lock()
            .iter()
            .filter(|asked| asked.contains("sendInitialEvents"))
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_stream_listings_is_asked_for_pages() {
    let page = |items: Value, next: &str| json!({"metadata": {"resourceVersion": "4", "continue": next}, "items": items});
    let script = Script::default()
        .then(
            "sendInitialEvents",
            422,
            json!({"kind": "Status", "code": 422, "reason": "Invalid", "message": "no"}),
        )
        .then("limit=500", 200, page(json!([map("x", 1, "one")]), "more"))
        .then("continue=more", 200, page(json!([map("y", 2, "one")]), ""))
        .then_stay(
            "watch=true .. resourceVersion=4",
            &[event("DELETED", map("x", 6, "one"))],
        );
    let caches = caches(&script);
    await_value(&caches, "y", Some("one")).await;
    await_value(&caches, "x", None).await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_does_not_hide_the_others() {
    let broken = json!({"metadata": {"name": 5}});
    let script = Script::default().then_stay(
        "sendInitialEvents",
        &[
            event("ADDED", broken),
            event("ADDED", map("x", 1, "one")),
            listed(3),
        ],
    );
    let caches = caches(&script);
    within(caches.cache::<ConfigMap>().wait_synced()).await;
    assert_eq!(caches.cache::<ConfigMap>().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_falls_behind_is_told_to_look_again() {
    let script = Script::default();
    let caches = caches(&script);
    let mut changes = caches.cache::<ConfigMap>().subscribe();
    assert!(matches!(changes.recv().await, Some(Change::Resync)));
    let many: Vec<Value> = (1..2000)
        .map(|number| event("ADDED", map(&format!("m{number}"), number, "v")))
        .chain([listed(2001)])
        .collect();
    script.acts.lock().push_back(Act {
        asked: "sendInitialEvents",
        status: 200,
        body: many.iter().map(|line| format!("{line}\n")).collect(),
        stays_open: true,
    });
    within(caches.cache::<ConfigMap>().wait_synced()).await;
    assert!(matches!(changes.recv().await, Some(Change::Resync)));
    assert_eq!(caches.cache::<ConfigMap>().len(), 1999);
}

fn controller(
    context: &Context,
    reconcile: impl Fn(u32, Context) -> Result<Next, ReconcileError> + Send + Sync + 'static,
) -> (Queue, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    let reconcile = Arc::new(reconcile);
    let queue = Controller::<ConfigMap>::new("test").run(context, move |context, _: Key| {
        let (counter, reconcile) = (Arc::clone(&counter), Arc::clone(&reconcile));
        async move { reconcile(counter.fetch_add(1, Ordering::SeqCst), context) }
    });
    (queue, count)
}

async fn settle(count: &AtomicU32, wanted: u32) {
    within(async {
        while count.load(Ordering::SeqCst) < wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn failures_and_panics_are_retried_and_permanent_faults_are_not() {
    let script = Script::default().then_stay(
        "sendInitialEvents",
        &[event("ADDED", map("x", 1, "one")), listed(3)],
    );
    let context = Context::new(&caches(&script));
    let (queue, count) = controller(&context, |attempt, _| match attempt {
        0 => panic!("on purpose"),
        1 => Err(ReconcileError::transient("not yet")),
        2 => Ok(Next::After(Duration::from_secs(5))),
        _ => Err(ReconcileError::permanent("never")),
    });
    settle(&count, 4).await;
    tokio::time::sleep(Duration::from_secs(2000)).await;
    assert_eq!(count.load(Ordering::SeqCst), 4);
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_in_the_cache_when_apply_returns_and_an_older_event_does_not_undo_it() {
    let script = Script::default()
        .then_stay(
            "sendInitialEvents",
            &[event("ADDED", map("x", 1, "one")), listed(3)],
        )
        .then(
            "PUT /api/v1/namespaces/a/configmaps/x",
            200,
            map("x", 8, "two"),
        );
    let context = Context::new(&caches(&script));
    within(context.cache::<ConfigMap>().wait_synced()).await;
    let seen = context.cache::<ConfigMap>().get("a", "x").unwrap();
    let mut desired = (*seen).clone();
    desired.data = Some([("k".to_owned(), "two".to_owned())].into());
    let mut plan = Plan::new();
    plan.update(&*seen, &desired);
    within(context.apply(plan.clone())).await.unwrap();
    let cached = context.cache::<ConfigMap>().get("a", "x").unwrap();
    assert_eq!(cached.data, desired.data);
    // The same plan again would lose; a plan over what is now seen changes nothing and asks nobody.
    let asked = script.log.lock().len();
    let mut again = Plan::new();
    again.update(&*cached, &desired);
    within(context.apply(again)).await.unwrap();
    assert_eq!(script.log.lock().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn refusals_say_whose_fault_they_are() {
    let status = |code: u16, reason: &str| json!({"kind": "Status", "code": code, "reason": reason, "message": "words"});
    let cases: [(u16, &str, fn(&ReconcileError) -> bool); 5] = [
        (409, "Conflict", ReconcileError::is_conflict),
        (409, "AlreadyExists", ReconcileError::is_already_exists),
        (404, "NotFound", ReconcileError::is_not_found),
        (403, "Forbidden", |error| {
            matches!(error, ReconcileError::Refused { code: 403, .. })
        }),
        (429, "TooManyRequests", |error| {
            matches!(error, ReconcileError::Busy { .. })
        }),
    ];
    for (code, reason, expected) in cases {
        let script = Script::default().then("POST", code, status(code, reason));
        let context = Context::new(&caches(&script));
        let object: ConfigMap = serde_json::from_value(map("x", 1, "one")).unwrap();
        let error = within(context.create(&object)).await.unwrap_err();
        assert!(expected(&error), "{error:?}");
        assert_eq!(error.message(), "words");
    }
}

#[tokio::test(start_paused = true)]
async fn at_a_start_controllers_wait_at_the_gate_and_what_is_asked_for_goes_first() {
    let many: Vec<Value> = (0..50)
        .map(|number| event("ADDED", map(&format!("m{number:02}"), number + 1, "v")))
        .chain([listed(60)])
        .collect();
    let script = Script::default().then_stay("sendInitialEvents", &many);
    let (opener, gate) = kinglet_reconcile::Gate::closed();
    let context = Context::new(&caches(&script)).behind(gate);
    let order = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&order);
    let queue =
        Controller::<ConfigMap>::new("test")
            .workers(1)
            .run(&context, move |_, key: Key| {
                log.lock().push(key.name.to_string());
                async { Ok(Next::Done) }
            });
    within(context.cache::<ConfigMap>().wait_synced()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(order.lock().is_empty(), "the gate is closed");
    queue.add(Key::new("a", "m40"));
    opener.open();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let order = order.lock();
    assert_eq!(order.len(), 50);
    assert_eq!(order[..2], ["m40", "m00"]);
}

/// After a restart with 2,000 objects: what a request waits for passes all controllers of its chain before the rest.
#[tokio::test(start_paused = true)]
async fn what_is_asked_for_passes_a_chain_of_controllers_before_the_backlog() {
    const OBJECTS: u32 = 2000;
    const WORK: Duration = Duration::from_millis(1);
    let many: Vec<Value> = (1..=OBJECTS)
        .map(|number| event("ADDED", map(&format!("m{number}"), number.into(), "v")))
        .chain([listed(9999)])
        .collect();
    let script = Script::default().then_stay("sendInitialEvents", &many);
    let (opener, gate) = kinglet_reconcile::Gate::closed();
    let context = Context::new(&caches(&script)).behind(gate);
    let asked = Key::new("a", "m1777");
    let others = Arc::new(AtomicU32::new(0));
    let (told, mut arrived) = tokio::sync::mpsc::channel::<u32>(1);
    let mut next: Option<Queue> = None;
    for name in ["third", "second", "first"] {
        let (others, asked, told) = (Arc::clone(&others), asked.clone(), told.clone());
        let after = next.take();
        let queue =
            Controller::<ConfigMap>::new(name)
                .workers(4)
                .run(&context, move |_, key: Key| {
                    let (others, told) = (Arc::clone(&others), told.clone());
                    let (is_asked, after) = (key == asked, after.clone());
                    async move {
                        tokio::time::sleep(WORK).await;
                        match after {
                            Some(after) if is_asked => after.add(key),
                            None if is_asked => {
                                let _ = told.try_send(others.load(Ordering::SeqCst));
                            }
                            _ => {
                                others.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                        Ok(Next::Done)
                    }
                });
        next = Some(queue);
    }
    within(context.cache::<ConfigMap>().wait_synced()).await;
    opener.open();
    tokio::time::sleep(WORK * 5).await;
    let before = others.load(Ordering::SeqCst);
    assert!((1..OBJECTS / 10).contains(&before), "under way: {before}");
    next.unwrap().add(asked);
    let after = within(arrived.recv()).await.unwrap();
    // Half of the processors go on with the backlog meanwhile, a millisecond for each.
    let turns = std::thread::available_parallelism().map_or(1, usize::from) / 2 + 1;
    assert!(
        (after - before) as usize <= 8 * turns,
        "{} others",
        after - before
    );
    settle(&others, 3 * (OBJECTS - 1)).await;
}

#[tokio::test(start_paused = true)]
async fn readers_with_and_without_types_share_a_watch_which_ends_with_a_kind_that_nobody_reads_typed()
 {
    let kind = |kind: &str, plural: &str| {
        Arc::new(ResourceKind {
            group: String::new(),
            version: "v1".into(),
            kind: kind.into(),
            plural: plural.into(),
            namespaced: true,
            delete_collection: true,
        })
    };
    let script = Script::default()
        .then_stay(
            "/configmaps .. sendInitialEvents",
            &[event("ADDED", map("x", 1, "one")), listed(3)],
        )
        .then_stay(
            "/widgets .. sendInitialEvents",
            &[event("ADDED", map("w", 1, "one")), listed(3)],
        );
    let caches = caches(&script);
    let (maps, widgets) = (kind("ConfigMap", "configmaps"), kind("Widget", "widgets"));
    let gone = Arc::new(AtomicU32::new(0));
    for kind in [&maps, &widgets] {
        let gone = Arc::clone(&gone);
        let cache = caches.dynamic(kind);
        within(cache.wait_synced()).await;
        cache.observe(move |change| {
            gone.fetch_add(
                u32::from(matches!(change, Change::Deleted(_))),
                Ordering::SeqCst,
            );
            true
        });
    }
    await_value(&caches, "x", Some("one")).await;
    let found = caches.dynamic(&maps).get("a", "x").unwrap();
    assert_eq!(found.value()["data"]["k"], "one");
    assert_eq!(caches.dynamic(&widgets).all().len(), 1);
    assert_eq!(caches.memory().len(), 2);

    caches.release(&maps);
    caches.release(&widgets);
    assert_eq!(gone.load(Ordering::SeqCst), 1, "the widget");
    assert_eq!(caches.memory().len(), 1, "typed readers keep theirs");
    assert!(caches.cache::<ConfigMap>().get("a", "x").is_some());
    // The kind is served again.
    script.acts.lock().push_back(Act {
        asked: "/widgets .. sendInitialEvents",
        status: 200,
        body: [event("ADDED", map("v", 9, "two")), listed(10)]
            .iter()
            .map(|line| format!("{line}\n"))
            .collect(),
        stays_open: true,
    });
    let again = caches.dynamic(&widgets);
    within(again.wait_synced()).await;
    assert!(again.get("a", "w").is_none() && again.get("a", "v").is_some());
    let watches = |path: &str| {
        let log = script.log.lock();
        log.iter().filter(|asked| asked.contains(path)).count()
    };
    assert_eq!((watches("/configmaps"), watches("/widgets")), (1, 2));
}
