//! `watch`: a stream of changes that costs nothing per watcher but the sending.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use kinglet_store::{Change, Event, TooOld, Watch};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accept::Form;
use crate::body::{ApiResponse, Body, streaming};
use crate::context::RequestContext;
use crate::conversion;
use crate::object;
use crate::present::{Presenter, is_second_event};
use crate::read;
use crate::selector::Selector;
use crate::state::ServerState;
use crate::status::{Cause, Status};

/// Time between bookmarks of an idle watch, as in the Kubernetes API server.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Life of a watch whose client names no timeout; Kubernetes takes 30 to 60 minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2700);
/// Longest timeout of a watch; the clock cannot represent the end of a much longer one.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Bytes put into one chunk when several events are ready.
const CHUNK_BYTES: usize = 64 << 10;

struct Stream {
    server: Arc<ServerState>,
    watch: Option<Watch>,
    selector: Selector,
    presenter: Presenter,
    prefix_len: usize,
    /// Each event is sent in three frames, of which the second is the stored object itself and not a copy.
    shares_objects: bool,
    /// Objects may be stored in another version than the one that is watched.
    converts: bool,
    pending: VecDeque<Bytes>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    first: bool,
    /// Ends the stream to a client outside when the listener stops.
    closing: Option<CancellationToken>,
    /// Tells of changed definitions, for a kind that one of them brings.
    reloads: Option<tokio::sync::watch::Receiver<u64>>,
}

pub(crate) async fn watch(context: &RequestContext<'_>) -> Result<ApiResponse, Status> {
    let selector = read::selector(context)?;
    let server = context.server;
    let asked = read::parse_revision(context.query.get("resourceVersion"))?;
    let initial = initial_events(context)?;
    let current = server.store.revision();
    if asked > current {
        return Err(Status::future_revision(asked, current));
    }
    let prefix = context.kind.range(&context.info.namespace);
    let send_all = initial.unwrap_or(asked == 0);
    let now = Instant::now();
    let mut presenter = Presenter::new(
        &context.kind,
        context.form,
        &context.query,
        server.options.clock.now(),
    )?;
    if let Form::PartialList(version) = presenter.form {
        presenter.form = Form::Partial(version);
    }
    // A reader outside gets its events in as few packets as possible, and pays for the copy anyway.
    let shares_objects =
        context.in_process() && presenter.form == Form::Plain && !is_second_event(&context.kind);
    let converts = context.kind.conversion.is_some()
        && !read::waits_for_no_webhook(&context.kind, presenter.form);
    let mut stream = Stream {
        server: Arc::clone(server),
        watch: None,
        selector,
        presenter,
        shares_objects,
        converts,
        prefix_len: context.kind.prefix.len(),
        pending: VecDeque::new(),
        bookmarks: context.query.flag("allowWatchBookmarks"),
        next_bookmark: now + BOOKMARK_EVERY,
        deadline: now + timeout(context),
        first: true,
        closing: (!context.in_process()).then(|| server.closing.clone()),
        reloads: context
            .kind
            .definition
            .is_some()
            .then(|| server.reloads.subscribe()),
    };
    let from = if send_all {
        stream.send_all(&prefix, initial == Some(true)).await?
    } else if asked == 0 {
        current
    } else {
        asked
    };
    match server.store.watch(&prefix, from) {
        Ok(watch) => stream.watch = Some(watch),
        Err(too_old) => {
            let line = expired(&too_old);
            stream.pending.push_back(line);
        }
    }
    let mut response = Response::new(Body::stream(futures_util::stream::unfold(
        stream,
        |mut stream| async move {
            let chunk = stream.next().await?;
            Some((chunk, stream))
        },
    )));
    streaming(&mut response, "application/json");
    Ok(response)
}

/// Returns whether the client asks for the present objects first (`sendInitialEvents`), if it says so.
fn initial_events(context: &RequestContext<'_>) -> Result<Option<bool>, Status> {
    let initial = context
        .query
        .has("sendInitialEvents")
        .then(|| context.query.flag("sendInitialEvents"));
    let wrong = match (initial, context.query.get("resourceVersionMatch")) {
        (None, "") | (Some(_), "NotOlderThan") => return Ok(initial),
        (None, _) => {
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        }
        (Some(_), _) => "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
    };
    Err(read::list_options(&Cause::forbidden(
        "resourceVersionMatch",
        wrong,
    )))
}

/// Returns how long the watch may last.
fn timeout(context: &RequestContext<'_>) -> Duration {
    let seconds = context.query.number("timeoutSeconds");
    match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds).min(TIMEOUT_MAX),
        _ => DEFAULT_TIMEOUT,
    }
}

impl Stream {
    /// Queues an ADDED event for each present object. Returns the revision of the listing.
    async fn send_all(&mut self, prefix: &str, marks_end: bool) -> Result<u64, Status> {
        let page = self
            .server
            .store
            .list(prefix, None, 0, None)
            .map_err(Status::internal)?;
        let (keys, stored): (Vec<_>, Vec<Bytes>) = page
            .entries
            .into_iter()
            .map(|(key, entry)| (key, entry.value))
            .unzip();
        let objects = self.in_version(stored).await?;
        for (key, object) in keys.iter().zip(&objects) {
            if self.selects(key, object) {
                self.queue("ADDED", object);
            }
        }
        if marks_end && self.bookmarks {
            self.pending.push_back(self.bookmark(page.revision, true));
        }
        Ok(page.revision)
    }

    /// Stored objects in the version that is watched.
    async fn in_version(&self, objects: Vec<Bytes>) -> Result<Vec<Bytes>, Status> {
        if self.converts {
            conversion::presentable(&self.server, &self.presenter.kind, objects).await
        } else {
            Ok(objects)
        }
    }

    fn selects(&self, key: &str, value: &[u8]) -> bool {
        self.selector.is_empty() || self.selector.matches(&key[self.prefix_len..], value)
    }

    /// Queues an event.
    fn queue(&mut self, kind: &'static str, value: &Bytes) {
        if self.shares_objects {
            let before = match kind {
                "ADDED" => &b"{\"type\":\"ADDED\",\"object\":"[..],
                "MODIFIED" => b"{\"type\":\"MODIFIED\",\"object\":",
                _ => b"{\"type\":\"DELETED\",\"object\":",
            };
            self.pending.push_back(Bytes::from_static(before));
            self.pending.push_back(value.clone());
            self.pending.push_back(Bytes::from_static(b"}\n"));
            return;
        }
        let with_columns = std::mem::take(&mut self.first);
        if matches!(self.presenter.form, Form::Table(_)) {
            self.presenter.at(self.server.options.clock.now());
        }
        let line = frame(kind, &self.presenter.one(value, with_columns));
        self.pending.push_back(line);
    }

    fn bookmark(&self, revision: u64, initial_end: bool) -> Bytes {
        let mut metadata =
            json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.presenter.form {
            Form::Table(version) => json!({
                "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {"resourceVersion": revision.to_string()},
                "columnDefinitions": [], "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata}}],
            }),
            Form::Partial(version) | Form::PartialList(version) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
            }
            Form::Plain | Form::Discovery(_) => {
                json!({"kind": self.presenter.kind.kind, "apiVersion": self.presenter.kind.api_version(), "metadata": metadata})
            }
        };
        frame("BOOKMARK", object.to_string().as_bytes())
    }

    /// Returns the next chunk, or none at the end of the watch.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.drain() {
                return Some(chunk);
            }
            let watch = self.watch.as_mut()?;
            let until = if self.bookmarks {
                self.deadline.min(self.next_bookmark)
            } else {
                self.deadline
            };
            let closing = self.closing.clone();
            let reloads = self.reloads.as_mut();
            let next = tokio::select! {
                () = closed(closing.as_ref()) => return None,
                () = reloaded(reloads) => {
                    self.follow_kind().await;
                    continue;
                }
                next = tokio::time::timeout_at(until, watch.next()) => next,
            };
            match next {
                Ok(Ok(events)) => {
                    tokio::select! {
                        () = closed(closing.as_ref()) => return None,
                        () = self.take(events) => {}
                    }
                }
                Ok(Err(too_old)) => {
                    self.watch = None;
                    self.pending.push_back(expired(&too_old));
                }
                Err(_) => {
                    // No event under this prefix waits, so the watcher has seen everything up to the newest revision.
                    match watch.ready() {
                        Ok(events) if !events.is_empty() => {
                            tokio::select! {
                                () = closed(closing.as_ref()) => return None,
                                () = self.take(events) => {}
                            }
                            continue;
                        }
                        Ok(_) => {}
                        Err(_) => continue,
                    }
                    let position = watch.position();
                    if self.bookmarks {
                        self.pending.push_back(self.bookmark(position, false));
                        self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    }
                    if Instant::now() >= self.deadline {
                        self.watch = None;
                    }
                }
            }
        }
    }

    /// Joins the queued events into one chunk, unless they share their objects with the store.
    fn drain(&mut self) -> Option<Bytes> {
        let first = self.pending.pop_front()?;
        if self.pending.is_empty() || self.shares_objects {
            return Some(first);
        }
        let mut chunk = BytesMut::from(&*first);
        while chunk.len() < CHUNK_BYTES
            && let Some(next) = self.pending.pop_front()
        {
            chunk.put_slice(&next);
        }
        Some(chunk.freeze())
    }

    /// Goes on with the kind as it is served now; ends where it is no longer served in this version.
    async fn follow_kind(&mut self) {
        let kind = &self.presenter.kind;
        let registry = self.server.registry.load();
        match registry.find(&kind.group, &kind.version, &kind.plural) {
            Some(now) => {
                self.presenter.kind = Arc::clone(now);
                self.converts = now.conversion.is_some()
                    && !read::waits_for_no_webhook(now, self.presenter.form);
            }
            None => {
                // What happened until then is still told: the objects that went with their definition.
                let left = self.watch.as_mut().and_then(|watch| watch.ready().ok());
                self.take(left.unwrap_or_default()).await;
                self.watch = None;
            }
        }
    }

    /// Queues the events of these changes; where an object cannot be converted, the watch ends with the reason, and its client lists anew.
    async fn take(&mut self, events: Vec<Event>) {
        let events = match self.converted(events).await {
            Ok(events) => events,
            Err(status) => {
                self.watch = None;
                let line = frame("ERROR", status.to_value().to_string().as_bytes());
                self.pending.push_back(line);
                return;
            }
        };
        for event in events {
            self.translate(&event);
        }
    }

    /// The same changes in the version that is watched.
    async fn converted(&self, mut events: Vec<Event>) -> Result<Vec<Event>, Status> {
        if !self.converts {
            return Ok(events);
        }
        let mut objects = Vec::with_capacity(events.len() * 2);
        for event in &events {
            let (Change::Put(value) | Change::Delete(value)) = &event.change;
            objects.push(value.clone());
            objects.extend(event.before.as_ref().map(|entry| entry.value.clone()));
        }
        let mut objects = self.in_version(objects).await?.into_iter();
        for event in &mut events {
            let (Change::Put(value) | Change::Delete(value)) = &mut event.change;
            *value = objects.next().unwrap_or_default();
            if let Some(before) = &mut event.before {
                before.value = objects.next().unwrap_or_default();
            }
        }
        Ok(events)
    }

    /// Queues the event of a change for this watcher: an object that stops matching its selector is DELETED, one that begins to is ADDED.
    fn translate(&mut self, event: &Event) {
        let before = event.before.as_ref().map(|entry| &entry.value);
        let matched = before.is_some_and(|value| self.selects(&event.key, value));
        match &event.change {
            Change::Put(value) => match (matched, self.selects(&event.key, value)) {
                (true, true) => self.queue("MODIFIED", value),
                (false, true) => self.queue("ADDED", value),
                (true, false) => {
                    if let Some(before) = before {
                        self.queue("DELETED", &object::restamp(before, event.revision));
                    }
                }
                (false, false) => {}
            },
            Change::Delete(value) if matched => self.queue("DELETED", value),
            Change::Delete(_) => {}
        }
    }
}

/// Ends when definitions have changed; never where that does not matter.
async fn reloaded(reloads: Option<&mut tokio::sync::watch::Receiver<u64>>) {
    if let Some(reloads) = reloads
        && reloads.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Ends when the listener stops; never where nobody says so.
async fn closed(closing: Option<&CancellationToken>) {
    match closing {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
    out.freeze()
}

fn expired(too_old: &TooOld) -> Bytes {
    let status = Status::expired(format!(
        "too old resource version: {} ({})",
        too_old.asked, too_old.oldest
    ));
    frame("ERROR", status.to_value().to_string().as_bytes())
}
