//! A data plane in memory, and a transport whose sinks do what they are told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kinglet_decide::call::{CallBody, HttpService};
use kinglet_events::binding::Format;
use kinglet_events::delivery::{Backoff, BackoffPolicy, Delivery as Policy, TTL_DEFAULT};
use kinglet_events::filter::{SubscriptionsApiFilter, TriggerFilter};
use kinglet_events::{Event, Filter, binding};
use kinglet_process::{Clock, Tasks};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::engine::memory::MemoryEngine;
use crate::engine::{ChannelId, Engine};
use crate::feed::{
    Access, BrokerRoute, ChannelRoute, Delivery, Destination, Key, Report, Subscriber,
    TriggerRoute, Update,
};
use crate::{Handle, NoAuthority, Options, Tokens, Transport, TransportError, Verify};

pub(crate) const FILTER: &str = "http://broker-filter.knative-eventing.svc.cluster.local";
pub(crate) const INGRESS: &str = "http://broker-ingress.knative-eventing.svc.cluster.local";

/// What a sink got.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) after: Duration,
    pub(crate) url: String,
    pub(crate) method: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn event(&self) -> Event {
        binding::decode(&self.headers, self.body.clone()).unwrap()
    }
}

/// What a sink does.
pub(crate) enum Act {
    Answer(Response<CallBody>),
    After(Duration, Box<Act>),
    Refuse(&'static str),
    Hang,
}

pub(crate) fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Act {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let body = Full::new(Bytes::from(body.to_owned())).map_err(|never| match never {});
    let body: CallBody = Box::pin(body);
    Act::Answer(response.body(body).unwrap())
}

/// An answer that is an event.
pub(crate) fn replies(id: &str, kind: &str) -> Act {
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", id),
        ("ce-type", kind),
        ("ce-source", "/replier"),
        ("content-type", "application/json"),
    ];
    answer(200, &headers, "{\"reply\":true}")
}

type Script = dyn Fn(&Got, usize) -> Act + Send + Sync;

/// Sinks by script; hosts of the data plane's own lead to its services.
pub(crate) struct Sinks {
    began: Instant,
    script: Box<Script>,
    got: Mutex<Vec<Got>>,
    own: Mutex<Option<Handle>>,
}

impl Sinks {
    /// What was got at URLs that contain `part`.
    pub(crate) fn at(&self, part: &str) -> Vec<Got> {
        let got = self.got.lock();
        got.iter()
            .filter(|one| one.url.contains(part))
            .cloned()
            .collect()
    }

    fn own(&self, uri: &http::Uri) -> Option<Arc<dyn HttpService>> {
        let host = uri.host()?;
        let handle = self.own.lock().clone()?;
        if host.starts_with("broker-filter.") {
            Some(handle.filter(false))
        } else if host.starts_with("broker-ingress.") {
            Some(handle.ingress(false))
        } else if host.contains("-kn-channel.") {
            Some(handle.channels("InMemoryChannel", false))
        } else {
            None
        }
    }

    async fn act(act: Act) -> Result<Response<CallBody>, TransportError> {
        match act {
            Act::Answer(answer) => Ok(answer),
            Act::Refuse(why) => Err(TransportError(why.to_owned())),
            Act::Hang => std::future::pending().await,
            Act::After(wait, then) => {
                tokio::time::sleep(wait).await;
                Box::pin(Self::act(*then)).await
            }
        }
    }
}

impl Transport for Sinks {
    fn send<'a>(
        &'a self,
        _: &'a Destination,
        request: Request<Bytes>,
    ) -> BoxFuture<'a, Result<Response<CallBody>, TransportError>> {
        Box::pin(async move {
            if let Some(own) = self.own(request.uri()) {
                let request = request.map(|body| {
                    let body: CallBody = Box::pin(Full::new(body).map_err(|never| match never {}));
                    body
                });
                return Ok(own.call(request).await);
            }
            let (parts, body) = request.into_parts();
            let got = Got {
                after: self.began.elapsed(),
                url: parts.uri.to_string(),
                method: parts.method.to_string(),
                headers: parts.headers,
                body,
            };
            let before = {
                let mut all = self.got.lock();
                let id = got.headers.get("ce-id").cloned();
                let same =
                    |one: &&Got| one.url == got.url && one.headers.get("ce-id") == id.as_ref();
                let before = all.iter().filter(same).count();
                all.push(got.clone());
                before
            };
            Self::act((self.script)(&got, before + 1)).await
        })
    }
}

pub(crate) struct World {
    pub(crate) handle: Handle,
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) tasks: Tasks,
    pub(crate) shortcuts: bool,
}

pub(crate) struct Setup {
    pub(crate) shortcuts: bool,
    pub(crate) engine: Option<Arc<dyn Engine>>,
    pub(crate) clock: Option<Clock>,
    pub(crate) verify: Arc<dyn Verify>,
    pub(crate) tokens: Arc<dyn Tokens>,
}

impl Setup {
    pub(crate) fn new(shortcuts: bool) -> Self {
        Self {
            shortcuts,
            engine: None,
            clock: None,
            verify: Arc::new(NoAuthority),
            tokens: Arc::new(NoAuthority),
        }
    }

    /// A data plane whose sinks follow `script`: what was got, and which time for this URL and event id.
    pub(crate) fn start(
        self,
        script: impl Fn(&Got, usize) -> Act + Send + Sync + 'static,
    ) -> World {
        let tasks = Tasks::new();
        let began = "2026-11-21T10:00:00Z".parse().unwrap();
        let clock = self.clock.unwrap_or_else(|| Clock::simulated(began));
        let sinks = Arc::new(Sinks {
            began: Instant::now(),
            script: Box::new(script),
            got: Mutex::default(),
            own: Mutex::default(),
        });
        let memory: Arc<dyn Engine> = Arc::new(MemoryEngine::new(&tasks));
        let mut engines: HashMap<Arc<str>, Arc<dyn Engine>> = HashMap::new();
        engines.insert("InMemoryChannel".into(), memory);
        if let Some(engine) = self.engine {
            engines.insert("DurableChannel".into(), engine);
        }
        let options = Options {
            engines,
            transport: sinks.clone(),
            tokens: self.tokens,
            verify: self.verify,
            clock,
            system_namespace: "knative-eventing".into(),
            shortcuts: self.shortcuts,
            ttl_default: TTL_DEFAULT,
        };
        let (handle, reports) = Handle::new(options, &tasks);
        *sinks.own.lock() = Some(handle.clone());
        World {
            handle,
            sinks,
            reports,
            tasks,
            shortcuts: self.shortcuts,
        }
    }
}

/// A Trigger of a test's Broker.
pub(crate) struct TestTrigger {
    pub(crate) name: &'static str,
    pub(crate) event_type: Option<&'static str>,
    pub(crate) subscriber: String,
    pub(crate) delivery: Delivery,
    pub(crate) filters: Vec<SubscriptionsApiFilter>,
}

pub(crate) fn trigger(
    name: &'static str,
    event_type: Option<&'static str>,
    subscriber: &str,
) -> TestTrigger {
    TestTrigger {
        name,
        event_type,
        subscriber: subscriber.to_owned(),
        delivery: Delivery::default(),
        filters: Vec::new(),
    }
}

impl TestTrigger {
    pub(crate) fn with(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    fn route(&self) -> TriggerRoute {
        let filter = self.event_type.map(|kind| TriggerFilter {
            attributes: [("type".to_owned(), kind.to_owned())].into(),
        });
        TriggerRoute {
            uid: format!("{}-uid", self.name).into(),
            broker: Key::new("ns", "default"),
            filter: Arc::new(Filter::compile(filter.as_ref(), &self.filters, None).0),
            subscriber: Some(Destination::plain(&*self.subscriber)),
            delivery: self.delivery.clone(),
            reply: None,
            identity: None,
            authenticates: false,
            auto_event_types: true,
        }
    }
}

pub(crate) fn channel_id(kind: &str, name: &str) -> ChannelId {
    ChannelId {
        kind: kind.into(),
        key: Key::new("ns", name),
        uid: format!("{name}-channel-uid").into(),
    }
}

pub(crate) fn subscriber(name: &str, to: Option<&str>) -> Subscriber {
    Subscriber {
        uid: format!("{name}-subscription").into(),
        generation: 1,
        name: name.into(),
        subscriber: to.map(Destination::plain),
        reply: None,
        delivery: Delivery::default(),
        ordered: false,
        identity: None,
    }
}

pub(crate) fn channel_of(subscribers: Vec<Subscriber>) -> ChannelRoute {
    ChannelRoute {
        subscribers,
        asynchronous: false,
        access: Access::default(),
        retention: None,
        auto_event_types: false,
    }
}

pub(crate) fn retries(retries: u32, policy: BackoffPolicy, delay_ms: u64) -> Policy {
    Policy {
        retries,
        backoff: Some(Backoff {
            policy,
            delay: Duration::from_millis(delay_ms),
        }),
        timeout: None,
        retry_after_max: None,
        format: Format::Binary,
    }
}

pub(crate) fn dead(policy: Policy, dead_letter: &str) -> Delivery {
    Delivery {
        dead_letter: Some(Destination::plain(dead_letter)),
        policy,
    }
}

impl World {
    /// Broker `ns/default` over a channel of this kind, with Triggers.
    pub(crate) async fn broker(&self, kind: &str, triggers: &[TestTrigger]) {
        let id = channel_id(kind, "default-kne-trigger");
        let subscribers = triggers
            .iter()
            .map(|trigger| Subscriber {
                subscriber: Some(Destination::plain(format!(
                    "{FILTER}/triggers/ns/{}/{}-uid",
                    trigger.name, trigger.name
                ))),
                reply: Some(Destination::plain(format!("{INGRESS}/ns/default"))),
                delivery: trigger.delivery.clone(),
                ..subscriber(trigger.name, None)
            })
            .collect();
        let route = channel_of(subscribers);
        self.apply(Update::Channel(id.clone(), Some(route))).await;
        for trigger in triggers {
            let key = Key::new("ns", trigger.name);
            self.apply(Update::Trigger(key, Some(trigger.route())))
                .await;
        }
        let route = BrokerRoute {
            uid: "broker-uid".into(),
            channel: self.shortcuts.then_some(id),
            address: Some(Destination::plain(
                "http://default-kne-trigger-kn-channel.ns.svc.cluster.local",
            )),
            access: Access::default(),
            auto_event_types: true,
        };
        self.apply(Update::Broker(Key::new("ns", "default"), Some(route)))
            .await;
    }

    pub(crate) async fn apply(&self, update: Update) {
        self.handle.apply(update).await.unwrap();
    }

    /// Posts to a service of the data plane.
    pub(crate) async fn post(
        &self,
        service: Arc<dyn HttpService>,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> (StatusCode, HeaderMap, String) {
        let body = Full::new(body.into()).map_err(|never| match never {});
        let body: CallBody = Box::pin(body);
        let answer = service.call(request.body(body).unwrap()).await;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (
            parts.status,
            parts.headers,
            String::from_utf8_lossy(&body).into_owned(),
        )
    }

    /// Posts an event to the Broker.
    pub(crate) async fn send(&self, id: &str, kind: &str) -> (StatusCode, String) {
        let (status, _, body) = self
            .post(
                self.handle.ingress(false),
                event_request("/ns/default", id, kind),
                "{\"a\":1}",
            )
            .await;
        (status, body)
    }

    /// Posts an event to a channel by its host.
    pub(crate) async fn send_to_channel(
        &self,
        kind: &str,
        name: &str,
        id: &str,
    ) -> (StatusCode, String) {
        let request = event_request("/", id, "foo")
            .header("host", format!("{name}-kn-channel.ns.svc.cluster.local"));
        let service = self.handle.channels(kind, false);
        let (status, _, body) = self.post(service, request, "{\"a\":1}").await;
        (status, body)
    }
}

pub(crate) fn event_request(path: &str, id: &str, kind: &str) -> http::request::Builder {
    Request::post(path)
        .header("ce-specversion", "1.0")
        .header("ce-id", id)
        .header("ce-type", kind)
        .header("ce-source", "/src")
        .header("content-type", "application/json")
}

/// Waits until something holds, in paused or real time.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 60 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
