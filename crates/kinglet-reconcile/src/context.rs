//! What every reconciler is given: caches to read, a clock, and the one place that writes.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use kinglet_process::Tasks;
use kinglet_process::clock::Clock;
use serde_json::Value;

use crate::backlog::Backlog;
use crate::cache::Cache;
use crate::caches::Caches;
use crate::error::ReconcileError;
use crate::event::EventRecord;
use crate::events::Recorder;
use crate::gate::Gate;
use crate::leader::Leadership;
use crate::object::{Key, Object, is_deleting, key_of, uid_of, version_of};
use crate::plan::{Next, Plan, Step};
use crate::send::{WriteOutcome, garbled, rebase, send, version_in};
use crate::wire;
use crate::write::{Cascade, Write};

/// Caches, client, clock and events of one component. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    caches: Caches,
    recorder: Recorder,
    component: &'static str,
    leadership: Leadership,
    gate: Gate,
    backlog: Backlog,
    /// The key that is worked on; leadership of it is asked for before each write.
    key: Option<Key>,
}

impl Context {
    /// The context of a process; components take theirs with [`Context::named`].
    pub fn new(caches: &Caches) -> Self {
        Self {
            caches: caches.clone(),
            recorder: Recorder::start(caches),
            component: "kinglet",
            leadership: Leadership::always(),
            gate: Gate::open(),
            backlog: Backlog::default(),
            key: None,
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

    /// The same context for controllers that begin when the gate opens.
    #[must_use]
    pub fn behind(&self, gate: Gate) -> Self {
        Self {
            gate,
            ..self.clone()
        }
    }

    /// Where controllers wait at a start.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Turns of what nobody waits for, all controllers of the process together.
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// The same context for the work on one key: its writes are refused once the key belongs to another replica.
    #[must_use]
    pub fn for_key(&self, key: &Key) -> Self {
        Self {
            key: Some(key.clone()),
            ..self.clone()
        }
    }

    /// Refuses what would be written although another replica may be at work. Without a key every bucket must be ours.
    pub(crate) fn may_write(&self, attempt: &str) -> Result<(), ReconcileError> {
        let owned = match &self.key {
            Some(key) => self.leadership.owns(key),
            None => self.leadership.owns_all(),
        };
        if owned {
            return Ok(());
        }
        Err(ReconcileError::NotLeading {
            attempt: attempt.to_owned(),
        })
    }

    /// Which keys this process may work on.
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
        let Plan { steps, next, error } = plan;
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
            let observed = version_in(&write.body).to_owned();
            if let Some((before, answer)) = written.get(&id)
                && *before == observed
            {
                rebase(&mut write, answer).map_err(|source| garbled(&write, source))?;
            }
            if let WriteOutcome::Object(answer) = send(self, &write).await? {
                (write.absorb)(&self.caches, &answer).map_err(|source| garbled(&write, source))?;
                written.insert(id, (observed, answer));
            }
        }
        match error {
            Some(error) => Err(error.into()),
            None => Ok(next),
        }
    }

    /// Creates an object and gives what the server made of it.
    pub async fn create<K: Object>(&self, object: &K) -> Result<Arc<K>, ReconcileError> {
        let write = Write::create(object);
        match send(self, &write).await? {
            WriteOutcome::Object(answer) => self.take(&write, &answer),
            WriteOutcome::Unchanged | WriteOutcome::Gone => Ok(Arc::new(object.clone())),
        }
    }

    /// The same for a write that is made already, such as one with fields from elsewhere.
    pub async fn create_as<K: Object>(&self, write: &Write) -> Result<Arc<K>, ReconcileError> {
        match send(self, write).await? {
            WriteOutcome::Object(answer) => self.take(write, &answer),
            WriteOutcome::Unchanged | WriteOutcome::Gone => Err(ReconcileError::permanent(
                format!("{}: nothing came of it", write.attempt()),
            )),
        }
    }

    /// The JSON of an object that was read from a cache, with fields that our types do not know; nothing when the cache has
    /// another version by now.
    pub fn raw<K: Object>(&self, observed: &K) -> Option<bytes::Bytes> {
        let (version, raw) = self.caches.raw::<K>(&key_of(observed))?;
        (version == version_of(observed.meta())).then_some(raw)
    }

    /// Makes `seen` equal `desired`; see [`Write::update`].
    pub async fn update<K: Object>(
        &self,
        observed: &K,
        desired: &K,
    ) -> Result<Arc<K>, ReconcileError> {
        let write = Write::update(observed, desired);
        match send(self, &write).await? {
            WriteOutcome::Object(answer) => self.take(&write, &answer),
            WriteOutcome::Unchanged | WriteOutcome::Gone => Ok(Arc::new(observed.clone())),
        }
    }

    /// Makes the status of `seen` equal `status`.
    pub async fn update_status<K: Object>(
        &self,
        observed: &K,
        status: &impl serde::Serialize,
    ) -> Result<Arc<K>, ReconcileError> {
        let write = Write::status(observed, status);
        match send(self, &write).await? {
            WriteOutcome::Object(answer) => self.take(&write, &answer),
            WriteOutcome::Unchanged | WriteOutcome::Gone => Ok(Arc::new(observed.clone())),
        }
    }

    /// Deletes exactly the object seen; that it is gone already is fine.
    pub async fn delete<K: Object>(
        &self,
        observed: &K,
        cascade: Cascade,
    ) -> Result<(), ReconcileError> {
        self.perform(&Write::delete(observed, cascade)).await
    }

    /// Carries out one write.
    pub async fn perform(&self, write: &Write) -> Result<(), ReconcileError> {
        match send(self, write).await? {
            WriteOutcome::Object(answer) => {
                (write.absorb)(&self.caches, &answer).map_err(|source| garbled(write, source))
            }
            WriteOutcome::Unchanged | WriteOutcome::Gone => Ok(()),
        }
    }

    /// Reads an object from the API server instead of the cache, and puts it into the cache.
    pub async fn read<K: Object>(&self, key: &Key) -> Result<Arc<K>, ReconcileError> {
        let namespace = (!key.namespace.is_empty()).then_some(&*key.namespace);
        let attempt = format!("reading {} {key}", K::kind(&()));
        let path = format!("{}/{}", K::url_path(&(), namespace), key.name);
        let answer = wire::call(self.client(), &attempt, Method::GET, &path, Vec::new()).await?;
        self.caches
            .absorb(&answer)
            .map_err(|source| ReconcileError::Garbled { attempt, source })
    }

    /// Whether `owner` exists, is the same object and is not being deleted, by the API server's word.
    ///
    /// Ask before a child is made: when an owner is deleted, the garbage collector takes its children afterwards, and
    /// a cache that has heard of the child's end but not yet of the owner's would have it made anew.
    pub async fn still_owns<K: Object>(&self, owner: &K) -> Result<bool, ReconcileError> {
        match self.read::<K>(&key_of(owner)).await {
            Ok(found) => Ok(uid_of(&*found) == uid_of(owner) && !is_deleting(&*found)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
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
        self.may_write(&attempt)?;
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
        if method != Method::GET {
            self.may_write(&attempt)?;
        }
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
        self.may_write(&attempt)?;
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

    fn take<K: Object>(
        &self,
        write: &Write,
        answer: &bytes::Bytes,
    ) -> Result<Arc<K>, ReconcileError> {
        self.caches
            .absorb(answer)
            .map_err(|source| garbled(write, source))
    }
}
