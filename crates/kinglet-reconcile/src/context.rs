//! What every reconciler is given: caches to read, a clock, and the one place that writes.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use kinglet_process::Tasks;
use kinglet_process::clock::Clock;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::caches::Caches;
use crate::error::ReconcileError;
use crate::events::Recorder;
use crate::leader::Leadership;
use crate::object::{Key, Object, key_of};
use crate::plan::{Cascade, EventRecord, Next, Plan, Step, Verb, Write};
use crate::wire;

/// Caches, client, clock and events of one component. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    caches: Caches,
    recorder: Recorder,
    component: &'static str,
    leadership: Leadership,
}

/// How a write ended.
enum Landed {
    /// It was as it should be.
    Unchanged,
    /// The server's answer.
    Object(bytes::Bytes),
    /// The object is gone.
    Gone,
}

#[derive(Deserialize)]
struct AnswerHead {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: AnswerMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerMeta {
    deletion_timestamp: Option<String>,
}

impl Context {
    /// The context of a process; components take theirs with [`Context::named`].
    pub fn new(caches: &Caches) -> Self {
        Self {
            caches: caches.clone(),
            recorder: Recorder::start(caches),
            component: "kinglet",
            leadership: Leadership::always(),
        }
    }

    /// The same context with another name as field manager and source of events.
    pub fn named(&self, component: &'static str) -> Self {
        Self {
            component,
            ..self.clone()
        }
    }

    /// The same context for controllers that work only while this process leads.
    #[must_use]
    pub fn led_by(&self, leadership: Leadership) -> Self {
        Self {
            leadership,
            ..self.clone()
        }
    }

    /// Whether this process may work.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// The caches of the process.
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// The cache of a kind.
    pub fn cache<K: Object>(&self) -> Cache<K> {
        self.caches.cache()
    }

    /// The client, for what a plan cannot say.
    pub fn client(&self) -> &kube::Client {
        self.caches.client()
    }

    /// The clock of the process.
    pub fn clock(&self) -> &Clock {
        self.caches.clock()
    }

    /// Wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.caches.clock().now()
    }

    /// The tasks that controllers belong to.
    pub fn tasks(&self) -> &Tasks {
        self.caches.tasks()
    }

    /// The name of the component.
    pub fn component(&self) -> &'static str {
        self.component
    }

    /// Carries out a plan in order and stops at the first write that fails.
    ///
    /// Writes that would change nothing are left out. Each answer is in the cache before the next step, so whoever
    /// reads it sees this plan done. Events are recorded in the background.
    pub async fn apply(&self, plan: Plan) -> Result<Next, ReconcileError> {
        let Plan {
            steps,
            next,
            trouble,
        } = plan;
        // What this plan itself has written, so that its second write to an object does not lose against its first.
        let mut written: HashMap<(String, Key), (String, bytes::Bytes)> = HashMap::new();
        for step in steps {
            let mut write = match step {
                Step::Event(event) => {
                    self.event(*event);
                    continue;
                }
                Step::Write(write) => write,
            };
            let id = (write.path.clone(), write.key.clone());
            let seen = version_in(&write.body).to_owned();
            if let Some((before, answer)) = written.get(&id)
                && *before == seen
            {
                let answer =
                    serde_json::from_slice(answer).map_err(|source| garbled(&write, source))?;
                rebase(&mut write, answer);
            }
            if let Landed::Object(answer) = self.land(&write).await? {
                (write.absorb)(&self.caches, &answer).map_err(|source| garbled(&write, source))?;
                written.insert(id, (seen, answer));
            }
        }
        match trouble {
            Some(trouble) => Err(trouble.into()),
            None => Ok(next),
        }
    }

    /// Creates an object and gives what the server made of it.
    pub async fn create<K: Object>(&self, object: &K) -> Result<Arc<K>, ReconcileError> {
        let write = Write::create(object);
        match self.land(&write).await? {
            Landed::Object(answer) => self.take(&write, &answer),
            Landed::Unchanged | Landed::Gone => Ok(Arc::new(object.clone())),
        }
    }

    /// Makes `seen` equal `desired`; see [`Write::update`].
    pub async fn update<K: Object>(&self, seen: &K, desired: &K) -> Result<Arc<K>, ReconcileError> {
        let write = Write::update(seen, desired);
        match self.land(&write).await? {
            Landed::Object(answer) => self.take(&write, &answer),
            Landed::Unchanged | Landed::Gone => Ok(Arc::new(seen.clone())),
        }
    }

    /// Makes the status of `seen` equal `status`.
    pub async fn update_status<K: Object>(
        &self,
        seen: &K,
        status: &impl serde::Serialize,
    ) -> Result<Arc<K>, ReconcileError> {
        let write = Write::status(seen, status);
        match self.land(&write).await? {
            Landed::Object(answer) => self.take(&write, &answer),
            Landed::Unchanged | Landed::Gone => Ok(Arc::new(seen.clone())),
        }
    }

    /// Deletes exactly the object seen; that it is gone already is fine.
    pub async fn delete<K: Object>(
        &self,
        seen: &K,
        cascade: Cascade,
    ) -> Result<(), ReconcileError> {
        self.perform(&Write::delete(seen, cascade)).await
    }

    /// Carries out one write.
    pub async fn perform(&self, write: &Write) -> Result<(), ReconcileError> {
        match self.land(write).await? {
            Landed::Object(answer) => {
                (write.absorb)(&self.caches, &answer).map_err(|source| garbled(write, source))
            }
            Landed::Unchanged | Landed::Gone => Ok(()),
        }
    }

    /// Reads an object from the API server instead of the cache, and puts it into the cache.
    pub async fn read<K: Object>(&self, key: &Key) -> Result<Arc<K>, ReconcileError> {
        let namespace = (!key.namespace.is_empty()).then_some(&*key.namespace);
        let attempt = format!("reading {} {key}", K::kind(&()));
        let path = format!("{}/{}", K::url_path(&(), namespace), key.name);
        let answer = wire::call(self.client(), &attempt, Method::GET, &path, Vec::new()).await?;
        let object = serde_json::from_slice(&answer)
            .map_err(|source| ReconcileError::Garbled { attempt, source })?;
        Ok(self.caches.absorb::<K>(object))
    }

    /// Posts to a subresource such as `binding`.
    pub async fn post_subresource<K: Object>(
        &self,
        object: &K,
        name: &str,
        body: &Value,
    ) -> Result<(), ReconcileError> {
        let key = key_of(object);
        let namespace = (!key.namespace.is_empty()).then_some(&*key.namespace);
        let attempt = format!("posting {name} of {} {key}", K::kind(&()));
        let path = format!(
            "{}/{}/{name}?fieldManager={}",
            K::url_path(&(), namespace),
            key.name,
            wire::encode(self.component)
        );
        wire::call(
            self.client(),
            &attempt,
            Method::POST,
            &path,
            body.to_string().into_bytes(),
        )
        .await
        .map(|_| ())
    }

    /// One untyped call, for kinds found by discovery: `path` may carry a query.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<bytes::Bytes, ReconcileError> {
        let attempt = format!("{method} {path}");
        let body = body
            .map(|body| body.to_string().into_bytes())
            .unwrap_or_default();
        wire::call(self.client(), &attempt, method, path, body).await
    }

    /// A merge patch of an object found by discovery.
    pub async fn merge_patch(
        &self,
        path: &str,
        patch: &Value,
    ) -> Result<bytes::Bytes, ReconcileError> {
        let attempt = format!("patching {path}");
        let request = http::Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .header("accept", "application/json")
            .body(patch.to_string().into_bytes())
            .map_err(|source| ReconcileError::Permanent(format!("{attempt}: {source}")))?;
        let body = wire::open(self.client(), &attempt, request).await?;
        wire::collect(&attempt, body).await
    }

    /// Records an Event in the background.
    pub fn event(&self, event: EventRecord) {
        self.recorder.record(self.component, event);
    }

    fn take<K: Object>(&self, write: &Write, answer: &[u8]) -> Result<Arc<K>, ReconcileError> {
        let object = serde_json::from_slice(answer).map_err(|source| garbled(write, source))?;
        Ok(self.caches.absorb::<K>(object))
    }

    async fn land(&self, write: &Write) -> Result<Landed, ReconcileError> {
        if write.changes_nothing() {
            return Ok(Landed::Unchanged);
        }
        let attempt = write.attempt();
        let manager = wire::encode(self.component);
        let (method, path, body) = match &write.verb {
            Verb::Create => (
                Method::POST,
                format!("{}?fieldManager={manager}", write.path),
                write.body.to_string(),
            ),
            Verb::Update => (
                Method::PUT,
                format!("{}/{}?fieldManager={manager}", write.path, write.key.name),
                write.body.to_string(),
            ),
            Verb::Status => (
                Method::PUT,
                format!(
                    "{}/{}/status?fieldManager={manager}",
                    write.path, write.key.name
                ),
                write.body.to_string(),
            ),
            Verb::Delete {
                cascade,
                uid,
                version,
                grace_seconds,
            } => {
                let options = json!({
                    "apiVersion": "v1",
                    "kind": "DeleteOptions",
                    "propagationPolicy": cascade.as_str(),
                    "preconditions": {"uid": uid, "resourceVersion": version},
                    "gracePeriodSeconds": grace_seconds,
                });
                (
                    Method::DELETE,
                    format!("{}/{}", write.path, write.key.name),
                    options.to_string(),
                )
            }
        };
        tracing::debug!(component = self.component, verb = ?method, kind = %write.kind, key = %write.key, "write");
        let answer = wire::call(self.client(), &attempt, method, &path, body.into_bytes()).await;
        let Verb::Delete { uid, .. } = &write.verb else {
            return answer.map(Landed::Object);
        };
        match answer {
            Ok(answer) => {
                let head: AnswerHead =
                    serde_json::from_slice(&answer).map_err(|source| garbled(write, source))?;
                // An object in the answer is either waiting for its finalizers or the last state of one that is gone.
                if head.kind == "Status" || head.metadata.deletion_timestamp.is_none() {
                    self.forget(write, uid.as_deref());
                    Ok(Landed::Gone)
                } else {
                    Ok(Landed::Object(answer))
                }
            }
            Err(ReconcileError::NotFound { .. }) => {
                self.forget(write, uid.as_deref());
                Ok(Landed::Gone)
            }
            Err(error) => Err(error),
        }
    }

    fn forget(&self, write: &Write, uid: Option<&str>) {
        if let Some(uid) = uid {
            (write.forget)(&self.caches, &write.key, uid);
        }
    }
}

fn version_in(body: &Value) -> &str {
    body.pointer("/metadata/resourceVersion")
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// Puts a write on top of what the same plan has just written to the same object.
///
/// A status goes with the metadata of the answer, since API servers take annotations from status writes, too.
fn rebase(write: &mut Write, answer: Value) {
    let version = version_in(&answer).to_owned();
    match write.verb {
        Verb::Status => {
            let status = write
                .body
                .get_mut("status")
                .map(Value::take)
                .unwrap_or_default();
            write.seen = Some(answer.clone());
            write.body = answer;
            write.body["status"] = status;
        }
        Verb::Update => {
            if let Some(known) = write.body.pointer_mut("/metadata/resourceVersion") {
                *known = Value::String(version);
            }
        }
        Verb::Create | Verb::Delete { .. } => {}
    }
}

fn garbled(write: &Write, source: serde_json::Error) -> ReconcileError {
    ReconcileError::Garbled {
        attempt: write.attempt(),
        source,
    }
}
