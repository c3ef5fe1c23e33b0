//! One list-and-watch: keeps a [`Sink`] equal to what the API server holds for one kind.
//!
//! The loop knows no types, so it is compiled once; the sink reads the objects.
//! Guarantees: events reach the sink in the server's order; after [`Sink::end`] the sink has seen everything that
//! existed at that version; a lost connection is resumed where it broke, and a version that is too old (410) leads to
//! a fresh listing. Assumes that versions of one kind can be compared as numbers.
//! A server that does not stream listings (`sendInitialEvents`) is asked for pages instead.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout};

use crate::error::ReconcileError;
use crate::wire;

/// Longest line (one object) that is accepted; etcd's own limit for an object is 1.5 MiB.
const LINE_BYTES_MAX: usize = 32 << 20;
/// How long the server keeps one watch open; then it is resumed.
const WATCH_SECONDS: u32 = 1800;
/// A connection on which nothing was heard for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(1860);
/// The same once a server has sent a bookmark: it sends one each minute, so three that miss mean that nobody is there
/// any more, though the connection still looks open.
const SILENCE_WITH_BOOKMARKS_MAX: Duration = Duration::from_secs(200);
/// Objects per page when the server does not stream listings; kubectl's number.
const PAGE: u32 = 500;
/// First and longest pause between tries.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Receives what a [`Feed`] hears.
pub trait Sink: Send + Sync + 'static {
    /// A complete listing begins; what it does not mention is gone at [`Sink::end`].
    fn begin(&self);
    /// An object is there, or has changed.
    fn applied(&self, object: &Bytes) -> Result<(), serde_json::Error>;
    /// An object is gone; `object` is its last state.
    fn deleted(&self, object: &Bytes) -> Result<(), serde_json::Error>;
    /// The listing that began is complete and was taken at `version`.
    fn end(&self, version: u64);
    /// Whether nobody needs the feed any more.
    fn abandoned(&self) -> bool {
        false
    }
}

/// What to watch.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Path of the collection, such as `/api/v1/pods`.
    pub path: String,
    /// Label selector, or empty.
    pub labels: String,
    /// Field selector, or empty.
    pub fields: String,
    /// Ask for metadata only (`PartialObjectMetadata`).
    pub metadata_only: bool,
}

/// How one connection ended.
enum WatchEnd {
    /// Go on from the version reached.
    Resume,
    /// The version is too old: list again.
    Expired,
    /// The server does not know streaming listings.
    NoStreaming,
}

/// Where the loop stands.
#[derive(Default)]
struct WatchPosition {
    version: Option<String>,
    listing: bool,
    paged: bool,
    heard: bool,
    /// This server sends bookmarks.
    bookmarks: bool,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(borrow)]
    metadata: VersionMeta<'a>,
}

#[derive(Deserialize)]
struct VersionMeta<'a> {
    #[serde(rename = "resourceVersion", borrow, default)]
    version: std::borrow::Cow<'a, str>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Page<'a> {
    metadata: PageMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

impl Feed {
    /// Runs until the future is dropped or the sink is abandoned.
    pub async fn run(self, client: kube::Client, sink: Arc<dyn Sink>) {
        let mut position = WatchPosition::default();
        let mut pause = PAUSE_MIN;
        while !sink.abandoned() {
            let began = Instant::now();
            position.heard = false;
            match self.once(&client, &*sink, &mut position).await {
                Ok(WatchEnd::Resume) => {}
                Ok(WatchEnd::Expired) => {
                    tracing::debug!(path = %self.path, "watch version is too old, listing again");
                    position = WatchPosition {
                        paged: position.paged,
                        bookmarks: position.bookmarks,
                        ..WatchPosition::default()
                    };
                }
                Ok(WatchEnd::NoStreaming) => {
                    position = WatchPosition {
                        paged: true,
                        ..WatchPosition::default()
                    };
                    continue;
                }
                Err(error) => {
                    tracing::debug!(path = %self.path, error = %error, "watch broke, trying again")
                }
            }
            // A connection that worked for a while earns a prompt new one; a listing cut short starts over.
            if position.listing {
                position = WatchPosition {
                    paged: position.paged,
                    heard: position.heard,
                    bookmarks: position.bookmarks,
                    ..WatchPosition::default()
                };
            }
            if position.heard || began.elapsed() > PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            if position.heard && began.elapsed() > PAUSE_MAX {
                continue;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn once(
        &self,
        client: &kube::Client,
        sink: &dyn Sink,
        position: &mut WatchPosition,
    ) -> Result<WatchEnd, ReconcileError> {
        if position.version.is_none() && position.paged {
            self.list(client, sink, position).await?;
        }
        let mut query =
            format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}");
        match &position.version {
            Some(version) => query.push_str(&format!("&resourceVersion={}", wire::encode(version))),
            None => {
                query.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
                sink.begin();
                position.listing = true;
            }
        }
        let mut body = match wire::open(client, "watching", self.request(&query, false)).await {
            Ok(body) => body,
            Err(ReconcileError::Refused { code: 410, .. }) => return Ok(WatchEnd::Expired),
            Err(ReconcileError::Refused {
                code: 400 | 422, ..
            }) if position.listing => return Ok(WatchEnd::NoStreaming),
            Err(error) => return Err(error),
        };
        let mut lines = Lines::default();
        loop {
            let patience = if position.bookmarks {
                SILENCE_WITH_BOOKMARKS_MAX
            } else {
                SILENCE_MAX
            };
            let frame = match timeout(patience, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_)) | None) | Err(_) => return Ok(WatchEnd::Resume),
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let ended = lines.take(data, |line| self.line(line, sink, position))?;
            if let Some(ended) = ended {
                return Ok(ended);
            }
            if sink.abandoned() {
                return Ok(WatchEnd::Resume);
            }
        }
    }

    /// Reads one line; `Some` ends the connection.
    fn line(
        &self,
        line: WatchLine<'_>,
        sink: &dyn Sink,
        position: &mut WatchPosition,
    ) -> Result<Option<WatchEnd>, ReconcileError> {
        let garbled = |source| ReconcileError::Garbled {
            attempt: format!("watching {}", self.path),
            source,
        };
        let (kind, object) = match line {
            WatchLine::Whole(text) => {
                let event: Line<'_> = serde_json::from_str(text).map_err(garbled)?;
                let object = Bytes::copy_from_slice(event.object.get().as_bytes());
                (event.kind, object)
            }
            WatchLine::Parts(kind, object) => (kind, object),
        };
        if kind == "ERROR" {
            let status: wire::StatusAnswer = serde_json::from_slice(&object).unwrap_or_default();
            if status.code == 410 || status.reason == "Expired" || status.reason == "Gone" {
                return Ok(Some(WatchEnd::Expired));
            }
            if position.listing {
                // A server whose storage cannot stream listings says so here (seen with Kubernetes 1.34 on etcd 3.4).
                return Ok(Some(WatchEnd::NoStreaming));
            }
            return Err(ReconcileError::Busy {
                attempt: format!("watching {}", self.path),
                code: status.code,
                message: status.message,
            });
        }
        position.heard = true;
        position.bookmarks |= kind == "BOOKMARK";
        let outcome = match kind {
            "ADDED" | "MODIFIED" => sink.applied(&object),
            "DELETED" => sink.deleted(&object),
            _ => Ok(()),
        };
        if let Err(source) = outcome {
            // One object that cannot be read must not blind us to the others.
            tracing::warn!(path = %self.path, error = %source, "an object could not be read and is left out");
        }
        if position.listing && kind != "BOOKMARK" {
            // Only the end of a listing has a version to go on from.
            return Ok(None);
        }
        let Versioned { metadata } = serde_json::from_slice(&object).map_err(garbled)?;
        let bookmark_ends = kind == "BOOKMARK"
            && metadata.annotations.as_ref().is_some_and(|all| {
                all.get("k8s.io/initial-events-end")
                    .is_some_and(|v| v == "true")
            });
        if bookmark_ends && position.listing {
            position.listing = false;
            sink.end(metadata.version.parse().unwrap_or(u64::MAX));
        }
        if !metadata.version.is_empty() && !position.listing {
            position.version = Some(metadata.version.into_owned());
        }
        Ok(None)
    }

    async fn list(
        &self,
        client: &kube::Client,
        sink: &dyn Sink,
        position: &mut WatchPosition,
    ) -> Result<(), ReconcileError> {
        sink.begin();
        let mut next: Option<String> = None;
        loop {
            let mut query = format!("limit={PAGE}");
            if let Some(token) = &next {
                query.push_str(&format!("&continue={}", wire::encode(token)));
            }
            let request = self.request(&query, true);
            let attempt = format!("listing {}", self.path);
            let body = wire::open(client, &attempt, request).await?;
            let bytes = body
                .collect()
                .await
                .map_err(|source| ReconcileError::Unreachable {
                    attempt: attempt.clone(),
                    source: source.into(),
                })?
                .to_bytes();
            let page: Page<'_> =
                serde_json::from_slice(&bytes).map_err(|source| ReconcileError::Garbled {
                    attempt: attempt.clone(),
                    source,
                })?;
            for item in page.items.iter().flatten() {
                let item = Bytes::copy_from_slice(item.get().as_bytes());
                if let Err(source) = sink.applied(&item) {
                    tracing::warn!(path = %self.path, error = %source, "an object could not be read and is left out");
                }
            }
            next = page.metadata.next.filter(|token| !token.is_empty());
            if next.is_none() {
                sink.end(page.metadata.resource_version.parse().unwrap_or(u64::MAX));
                position.version = Some(page.metadata.resource_version);
                return Ok(());
            }
        }
    }

    fn request(&self, query: &str, whole_list: bool) -> Request<Vec<u8>> {
        let mut uri = format!("{}?{query}", self.path);
        for (name, selector) in [
            ("labelSelector", &self.labels),
            ("fieldSelector", &self.fields),
        ] {
            if !selector.is_empty() {
                uri.push_str(&format!("&{name}={}", wire::encode(selector)));
            }
        }
        let accept = match (self.metadata_only, whole_list) {
            (false, _) => "application/json",
            (true, false) => {
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
            }
            (true, true) => {
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
            }
        };
        let mut request = Request::new(Vec::new());
        *request.uri_mut() = uri.parse().unwrap_or_default();
        request
            .headers_mut()
            .insert("accept", http::HeaderValue::from_static(accept));
        request.headers_mut().insert(
            "accept-encoding",
            http::HeaderValue::from_static("identity"),
        );
        request
    }
}

/// One event of a watch.
enum WatchLine<'a> {
    /// As it came.
    Whole(&'a str),
    /// Its type and its object, which is a frame of its own: the sender's bytes, not a copy.
    Parts(&'a str, Bytes),
}

/// What comes before the object where our own API server in this process sends an event in three frames.
const BEFORE_KIND: &[u8] = b"{\"type\":\"";
const AFTER_KIND: &[u8] = b"\",\"object\":";
/// What comes after it.
const AFTER_OBJECT: &[u8] = b"}\n";

/// Cuts the frames of a watch into lines.
#[derive(Default)]
struct Lines {
    /// The beginning of a line that is not complete.
    rest: Vec<u8>,
    /// A frame that is the whole object of the line in `rest`, unless the next frame says otherwise.
    object: Option<Bytes>,
}

impl Lines {
    /// Hands each line that `data` completes to `each`, until it gives something.
    fn take<T>(
        &mut self,
        data: Bytes,
        mut each: impl FnMut(WatchLine<'_>) -> Result<Option<T>, ReconcileError>,
    ) -> Result<Option<T>, ReconcileError> {
        if let Some(object) = self.object.take() {
            if let Some(kind) = kind_before(&self.rest).filter(|_| *data == *AFTER_OBJECT) {
                let outcome = each(WatchLine::Parts(utf8(kind)?, object));
                self.rest.clear();
                return outcome;
            }
            self.rest.extend_from_slice(&object);
        } else if data.first() == Some(&b'{')
            && data.last() == Some(&b'}')
            && !data.contains(&b'\n')
            && kind_before(&self.rest).is_some()
        {
            self.object = Some(data);
            return self.within(0);
        }
        let mut data = &*data;
        while let Some(at) = data.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = data.split_at(at);
            data = &tail[1..];
            let outcome = if self.rest.is_empty() {
                whole_line(head, &mut each)?
            } else {
                self.rest.extend_from_slice(head);
                whole_line(&std::mem::take(&mut self.rest), &mut each)?
            };
            if outcome.is_some() {
                return Ok(outcome);
            }
        }
        self.within::<T>(data.len())?;
        self.rest.extend_from_slice(data);
        Ok(None)
    }

    /// Refuses a line that grows too long.
    fn within<T>(&self, more: usize) -> Result<Option<T>, ReconcileError> {
        let held = self.object.as_ref().map_or(0, Bytes::len);
        if self.rest.len() + held + more > LINE_BYTES_MAX {
            return Err(ReconcileError::Permanent(
                "a watched object is larger than 32 MiB".to_owned(),
            ));
        }
        Ok(None)
    }
}

/// The type of the event whose object comes next.
fn kind_before(rest: &[u8]) -> Option<&[u8]> {
    rest.strip_prefix(BEFORE_KIND)?
        .strip_suffix(AFTER_KIND)
        .filter(|kind| kind.iter().all(u8::is_ascii_uppercase))
}

fn utf8(bytes: &[u8]) -> Result<&str, ReconcileError> {
    std::str::from_utf8(bytes)
        .map_err(|source| ReconcileError::Transient(format!("a watch line is not UTF-8: {source}")))
}

fn whole_line<T>(
    line: &[u8],
    each: &mut impl FnMut(WatchLine<'_>) -> Result<Option<T>, ReconcileError>,
) -> Result<Option<T>, ReconcileError> {
    let text = utf8(line)?.trim();
    if text.is_empty() {
        Ok(None)
    } else {
        each(WatchLine::Whole(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(frames: impl IntoIterator<Item = Bytes>) -> Vec<(String, bool)> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for frame in frames {
            let ended: Option<()> = lines
                .take(frame, |line| {
                    out.push(match line {
                        WatchLine::Whole(text) => (text.to_owned(), false),
                        WatchLine::Parts(kind, object) => {
                            let object = String::from_utf8_lossy(&object);
                            (format!("{{\"type\":\"{kind}\",\"object\":{object}}}"), true)
                        }
                    });
                    Ok(None)
                })
                .unwrap();
            assert!(ended.is_none());
        }
        assert!(lines.rest.is_empty() && lines.object.is_none());
        out
    }

    proptest::proptest! {
        /// Lines come out whole however the bytes are cut into frames.
        #[test]
        fn lines_survive_any_framing(lines in proptest::collection::vec("[a-zé]{1,12}", 0..8), cut in 1usize..9) {
            let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let frames = text.as_bytes().chunks(cut).map(Bytes::copy_from_slice);
            let out: Vec<String> = taken(frames).into_iter().map(|(line, _)| line).collect();
            proptest::prop_assert_eq!(out, lines);
        }

        /// The same for events, whose parts may come in frames of their own.
        #[test]
        fn events_survive_any_framing(values in proptest::collection::vec("[a-z{}]{0,6}", 1..6), cuts in proptest::collection::vec(1usize..40, 1..20)) {
            let event = |value: &String| format!("{{\"type\":\"ADDED\",\"object\":{{\"a\":{{\"b\":\"{value}\"}}}}}}");
            let expected: Vec<String> = values.iter().map(event).collect();
            let text = expected.iter().map(|line| format!("{line}\n")).collect::<String>();
            let mut frames = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (frame, tail) = rest.split_at((*cut).min(rest.len()));
                frames.push(Bytes::copy_from_slice(frame));
                rest = tail;
            }
            let out: Vec<String> = taken(frames).into_iter().map(|(line, _)| line).collect();
            proptest::prop_assert_eq!(out, expected);
        }
    }

    #[test]
    fn an_object_in_a_frame_of_its_own_is_not_copied() {
        let object = Bytes::from_static(b"{\"a\":1}");
        let mut lines = Lines::default();
        let mut seen = None;
        for frame in [
            Bytes::from_static(b"{\"type\":\"ADDED\",\"object\":"),
            object.clone(),
            Bytes::from_static(b"}\n"),
        ] {
            lines
                .take(frame, |line| {
                    let WatchLine::Parts("ADDED", object) = line else {
                        panic!("in three parts")
                    };
                    seen = Some(object);
                    Ok(None::<()>)
                })
                .unwrap();
        }
        assert_eq!(seen.unwrap().as_ptr(), object.as_ptr());
    }
}
