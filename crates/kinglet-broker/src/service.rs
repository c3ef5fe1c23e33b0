//! The stages as HTTP services: methods, paths, bodies, probes (spec/eventing.md 7.2 to 7.5).

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use kinglet_decide::call::{self, CallBody, HttpService};
use kinglet_events::binding::DecodeError;
use kinglet_events::{Event, binding, headers};

use crate::access::Sender;
use crate::answer::{Answer, allow, refuse, status, streamed};
use crate::body::{self, READ_WITHIN, Read, ReadError, Room, SILENCE_MAX};
use crate::feed::Key;
use crate::plane::{ChannelEntry, Plane};
use crate::short::{self, TriggerPath};
use crate::{filter, ingress, receiver};

/// Which stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Ingress,
    Filter,
    /// The dispatcher of the channels of a kind.
    Channels(Arc<str>),
}

/// A stage behind a listener.
pub(crate) struct Service {
    pub(crate) plane: Arc<Plane>,
    pub(crate) stage: Stage,
    /// Its listener is https.
    pub(crate) secured: bool,
}

const NETWORK_PROBE: &str = "k-network-probe";
const NETWORK_HASH: &str = "k-network-hash";
const ALLOWED: &str = "POST, OPTIONS";
const FILTER_ALLOWED: &str = "POST";

impl HttpService for Service {
    fn call(&self, request: Request<CallBody>) -> call::Answer<'_> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            streamed(self.answer(&parts, body).await)
        })
    }
}

impl Service {
    async fn answer(&self, parts: &Parts, body: CallBody) -> Answer {
        let plane = &self.plane;
        if let Some(probed) = probed(&parts.headers, plane.is_draining()) {
            return probed;
        }
        if !plane.serves(self.secured) {
            let (this, that) = match self.secured {
                true => ("https", "Permissive or Strict"),
                false => ("http", "Disabled or Permissive"),
            };
            return refuse(
                StatusCode::NOT_FOUND,
                format_args!(
                    "{this} is not served here: transport-encryption in ConfigMap config-features would be {that}"
                ),
            );
        }
        if plane.is_draining() {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, SHUTTING_DOWN);
        }
        match &self.stage {
            Stage::Ingress => allow(self.ingress(parts, body).await, ALLOWED),
            Stage::Filter => allow(self.filter(parts, body).await, FILTER_ALLOWED),
            Stage::Channels(kind) => self.channel(kind, parts, body).await,
        }
    }

    async fn ingress(&self, parts: &Parts, body: CallBody) -> Answer {
        if let Some(answer) = other_method(parts, true) {
            return answer;
        }
        let path = path_and_query(parts);
        if matches!(path, "" | "/") {
            return refuse(StatusCode::NOT_FOUND, "post to /NAMESPACE/BROKER");
        }
        let Some(key) = short::broker_of(path) else {
            return refuse(
                StatusCode::BAD_REQUEST,
                format_args!("the path {path:?} names no Broker: post to /NAMESPACE/BROKER"),
            );
        };
        let broker = self.plane.broker(&key);
        let room = broker.as_ref().map(|broker| &broker.room);
        let (event, _read) = match event(&parts.headers, body, room).await {
            Ok(read) => read,
            // Nobody needs to read on to know that there is no such Broker.
            Err(NoEvent::Unread(ReadError::TooLarge(_))) if broker.is_none() => {
                return refuse(
                    StatusCode::NOT_FOUND,
                    format_args!("there is no Broker {key}"),
                );
            }
            Err(no_event) => return no_event.answer(),
        };
        let sender = Sender::Request(&parts.headers);
        ingress::accept(
            &self.plane,
            &key,
            broker.as_deref(),
            event,
            &parts.headers,
            sender,
        )
        .await
    }

    async fn filter(&self, parts: &Parts, body: CallBody) -> Answer {
        if let Some(answer) = other_method(parts, false) {
            return answer;
        }
        let Some(path) = TriggerPath::parse(parts.uri.path()) else {
            return refuse(
                StatusCode::BAD_REQUEST,
                "post to /triggers/NAMESPACE/TRIGGER/UID",
            );
        };
        let trigger = self.plane.trigger(&path.trigger);
        let room = trigger.as_ref().map(|trigger| &trigger.room);
        let (event, _read) = match event(&parts.headers, body, room).await {
            Ok(read) => read,
            Err(no_event) => return no_event.answer(),
        };
        let passed_on = headers::forwarded(&parts.headers);
        let sender = Sender::Request(&parts.headers);
        filter::accept(&self.plane, &path, event, &passed_on, sender).await
    }

    async fn channel(&self, kind: &Arc<str>, parts: &Parts, body: CallBody) -> Answer {
        if let Some(answer) = other_method(parts, true) {
            return allow(answer, ALLOWED);
        }
        let channel = match self.channel_of(kind, parts) {
            Ok(channel) => channel,
            Err((code, why)) => return refuse(code, why),
        };
        let (event, _read) = match event(&parts.headers, body, Some(&channel.room)).await {
            Ok(read) => read,
            Err(no_event) => return allow(no_event.answer(), ALLOWED),
        };
        let passed_on = headers::forwarded(&parts.headers);
        let sender = Sender::Request(&parts.headers);
        let answer = receiver::accept(&self.plane, &channel, event, passed_on, sender).await;
        allow(answer, ALLOWED)
    }

    /// By the path `/NAMESPACE/NAME`, else by the host `NAME-kn-channel.NAMESPACE`.
    fn channel_of(
        &self,
        kind: &Arc<str>,
        parts: &Parts,
    ) -> Result<Arc<ChannelEntry>, (StatusCode, String)> {
        let host = host(parts);
        let path = parts.uri.path();
        let by_host = short::service_of(host).and_then(|(service, namespace)| {
            Some(Key::new(namespace, service.strip_suffix("-kn-channel")?))
        });
        let key = match (by_host, path) {
            (Some(key), "" | "/") => key,
            (Some(_), _) => {
                return Err((
                    StatusCode::BAD_REQUEST,
                    format!("the path {path:?} is not /: the host {host} names the channel"),
                ));
            }
            (None, _) => short::broker_of(path).ok_or_else(|| {
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("the host {host:?} names no channel: it is NAME-kn-channel.NAMESPACE.svc.DOMAIN"),
                )
            })?,
        };
        let found = self
            .plane
            .tables
            .read()
            .by_name
            .get(&(kind.clone(), key.clone()))
            .cloned();
        // Knative answers 500 here, too, and not 404.
        found.ok_or_else(|| {
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!(
                    "there is no {kind} {} in namespace {}",
                    key.name, key.namespace
                ),
            )
        })
    }
}

const SHUTTING_DOWN: &str = "shutting down";

/// Answers probes of kubelets and gateways.
fn probed(headers: &HeaderMap, draining: bool) -> Option<Answer> {
    let is_kubelet = headers
        .get(header::USER_AGENT)
        .is_some_and(|agent| agent.as_bytes().starts_with(b"kube-probe/"));
    let is_network = headers
        .get(NETWORK_PROBE)
        .is_some_and(|value| value == "probe");
    if !is_kubelet && !is_network {
        return None;
    }
    if draining {
        return Some(refuse(StatusCode::SERVICE_UNAVAILABLE, SHUTTING_DOWN));
    }
    let mut answer = status(StatusCode::OK);
    if is_network && !is_kubelet {
        match headers.get(NETWORK_HASH).filter(|hash| !hash.is_empty()) {
            Some(hash) => drop(answer.headers_mut().insert(NETWORK_HASH, hash.clone())),
            None => {
                return Some(refuse(
                    StatusCode::BAD_REQUEST,
                    "a probe must have a non-empty header K-Network-Hash",
                ));
            }
        }
    }
    Some(answer)
}

/// The answer to all methods but POST.
fn other_method(parts: &Parts, has_options: bool) -> Option<Answer> {
    match parts.method {
        Method::POST => None,
        Method::OPTIONS if has_options => {
            let mut answer = status(StatusCode::OK);
            for name in ["webhook-allowed-origin", "webhook-allowed-rate"] {
                answer
                    .headers_mut()
                    .insert(name, HeaderValue::from_static("*"));
            }
            Some(answer)
        }
        _ => Some(refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            format_args!("{} does not send events: use POST", parts.method),
        )),
    }
}

fn path_and_query(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("", |path| path.as_str())
}

/// The host of a request: of its URI (HTTP/2), else of its header.
fn host(parts: &Parts) -> &str {
    let of_header = || {
        parts
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
    };
    parts.uri.host().or_else(of_header).unwrap_or_default()
}

/// Why a request brings no event.
enum NoEvent {
    Unread(ReadError),
    Undecodable(DecodeError),
}

impl NoEvent {
    fn answer(self) -> Answer {
        match self {
            Self::Unread(error) => {
                let code = match error {
                    ReadError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
                    ReadError::Broken(_) => StatusCode::BAD_REQUEST,
                    ReadError::Silent | ReadError::Slow => StatusCode::REQUEST_TIMEOUT,
                };
                refuse(code, error)
            }
            Self::Undecodable(error) => refuse(error.status(), error),
        }
    }
}

/// Reads a request. The room of a large body is free again when the second part is dropped.
async fn event(
    headers: &HeaderMap,
    body: CallBody,
    room: Option<&Room>,
) -> Result<(Event, Read), NoEvent> {
    // What the headers say is wrong is wrong whatever the body is; then nobody reads it.
    if matches!(
        binding::mode(headers),
        binding::Mode::None | binding::Mode::Batch
    ) {
        let error = binding::decode(headers, Bytes::new());
        if let Err(error) = error {
            return Err(NoEvent::Undecodable(error));
        }
    }
    let read = body::read(body, room, Some(SILENCE_MAX));
    let read = tokio::time::timeout(READ_WITHIN, read).await;
    let read = read
        .unwrap_or(Err(ReadError::Slow))
        .map_err(NoEvent::Unread)?;
    let event = binding::decode(headers, read.bytes.clone()).map_err(NoEvent::Undecodable)?;
    Ok((event, read))
}
