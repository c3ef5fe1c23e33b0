//! A client whose watches deliver every event late, each watch by its own measure, and that counts what is created.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use kinglet_apiserver::ApiService;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::Value;
use tower::ServiceExt as _;

/// Longest delay of an event that is late; one in so many is.
const DELAY_MAX: Duration = Duration::from_millis(150);
const LATE_ONE_IN: u64 = 4;

/// Chance that follows from a seed (SplitMix64). Clones share it.
#[derive(Clone)]
pub(crate) struct Random(Arc<AtomicU64>);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// A duration of up to `max`.
    pub(crate) fn up_to(&self, max: Duration) -> Duration {
        max.mul_f64(f64::from((self.next() >> 40) as u32) / f64::from(1_u32 << 24))
    }

    /// True once in `n`.
    fn once_in(&self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    fn next(&self) -> u64 {
        let step = 0x9E37_79B9_7F4A_7C15_u64;
        let mut z = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// How many children were created, by collection and uid of the owner. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Created(Arc<Mutex<BTreeMap<(String, String), usize>>>);

impl Created {
    /// The owners that had more than one child made.
    pub(crate) fn more_than_one(&self) -> Vec<((String, String), usize)> {
        let all = self.0.lock();
        let many = all.iter().filter(|(_, count)| **count > 1);
        many.map(|(owner, count)| (owner.clone(), *count)).collect()
    }

    /// How many children were created in all.
    pub(crate) fn total(&self) -> usize {
        self.0.lock().values().sum()
    }
}

/// A client over `service` with late watches.
pub(crate) fn client(service: ApiService, random: Random, created: Created) -> kube::Client {
    let late = tower::service_fn(move |request: Request<Body>| {
        let (service, random, created) = (service.clone(), random.clone(), created.clone());
        async move { call(service, request, random, created).await }
    });
    kube::Client::new(late, "default")
}

async fn call(
    service: ApiService,
    request: Request<Body>,
    random: Random,
    created: Created,
) -> Result<Response<UnsyncBoxBody<Bytes, std::io::Error>>, Infallible> {
    let path = request.uri().path();
    let collection = path.rsplit('/').next().unwrap_or_default().to_owned();
    let counted =
        request.method() == Method::POST && matches!(collection.as_str(), "replicasets" | "pods");
    let watch = request
        .uri()
        .query()
        .is_some_and(|query| query.contains("watch="));
    let (request, owner) = if counted {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let object: Value = serde_json::from_slice(&body).unwrap();
        let owner = object["metadata"]["ownerReferences"][0]["uid"].as_str();
        let owner = owner.map(str::to_owned);
        (Request::from_parts(head, Body::from(body)), owner)
    } else {
        (request, None)
    };
    let answer = service.oneshot(request).await?;
    if let Some(owner) = owner.filter(|_| answer.status().is_success()) {
        *created.0.lock().entry((collection, owner)).or_default() += 1;
    }
    Ok(answer.map(|body| {
        let body = body.map_err(std::io::Error::other);
        if !watch {
            return body.boxed_unsync();
        }
        let frames = stream::unfold(body.boxed_unsync(), move |mut body| {
            let random = random.clone();
            async move {
                let frame = body.frame().await?;
                if random.once_in(LATE_ONE_IN) {
                    tokio::time::sleep(random.up_to(DELAY_MAX)).await;
                }
                Some((frame, body))
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }))
}
