//! Which protocol a client speaks with a program, and who speaks it.

use std::time::Duration;

use http::{HeaderValue, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::idle::{GOODBYE_MAX, IDLE_MAX};
use super::{Session, Upgrade, Wanted, pump, spdy, websocket};
use crate::status::Status;

/// One message channel over a WebSocket, newest first: the fifth can say that input has ended.
const WEBSOCKET_PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// One stream of SPDY per stream of the program; the end comes as a `Status`.
const SPDY_PROTOCOL: &str = "v4.channel.k8s.io";
/// How long the end of a program's output waits for a client that does not take it: somebody may be reading it page by page.
/// As long as an idle session.
const LAST_OUTPUT_MAX: Duration = IDLE_MAX;
pub(super) const SPDY_VERSION: &str = "SPDY/3.1";
pub(super) const SPDY_HEADER: &str = "x-stream-protocol-version";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    WebSocket(&'static str),
    Spdy,
}

pub(super) fn negotiate(upgrade: &Upgrade) -> Result<Protocol, Status> {
    if upgrade.wants("websocket") {
        let offered = upgrade.list("sec-websocket-protocol");
        let known = WEBSOCKET_PROTOCOLS
            .into_iter()
            .find(|known| offered.contains(known));
        return known.map(Protocol::WebSocket).ok_or_else(|| {
            Status::bad_request(format!(
                "unable to negotiate protocol: client supports {offered:?}, server accepts {WEBSOCKET_PROTOCOLS:?}"
            ))
        });
    }
    if !upgrade.wants(SPDY_VERSION) {
        return Err(Status::bad_request(format!(
            "unable to upgrade: the request asks for neither websocket nor {SPDY_VERSION}"
        )));
    }
    let offered = upgrade.list(SPDY_HEADER);
    if offered.contains(&SPDY_PROTOCOL) {
        Ok(Protocol::Spdy)
    } else {
        Err(Status::new(
            403,
            "Forbidden",
            format!(
                "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts [{SPDY_PROTOCOL}]"
            ),
        ))
    }
}

impl Protocol {
    pub(super) fn headers(
        self,
        upgrade: &Upgrade,
    ) -> Result<Vec<(header::HeaderName, HeaderValue)>, Status> {
        match self {
            Self::WebSocket(protocol) => websocket::headers(upgrade, protocol),
            Self::Spdy => Ok(spdy_headers(SPDY_PROTOCOL)),
        }
    }

    /// Speaks with the client until the session has ended or the client is gone.
    pub(super) async fn speak(self, connection: Upgraded, session: Session, wanted: Wanted) {
        let connection = TokioIo::new(connection);
        let (from_client, from) = mpsc::channel(pump::MESSAGES_MAX);
        let (to, to_client) = mpsc::channel(pump::MESSAGES_MAX);
        let client = async {
            match self {
                Self::WebSocket(_) => {
                    websocket::speak(connection, from_client, to_client, wanted).await;
                }
                Self::Spdy => {
                    spdy::session::speak(connection, from_client, to_client, wanted).await
                }
            }
        };
        let program = async {
            let patience = match pump::run(session, from, to).await {
                pump::Ended::Program => LAST_OUTPUT_MAX,
                pump::Ended::Idle => GOODBYE_MAX,
            };
            // The client's side ends once it has sent everything.
            tokio::time::sleep(patience).await;
        };
        tokio::select! {
            () = client => {}
            () = program => {}
        }
    }
}

pub(super) fn spdy_headers(protocol: &'static str) -> Vec<(header::HeaderName, HeaderValue)> {
    vec![
        (header::UPGRADE, HeaderValue::from_static(SPDY_VERSION)),
        (
            header::HeaderName::from_static(SPDY_HEADER),
            HeaderValue::from_static(protocol),
        ),
    ]
}
