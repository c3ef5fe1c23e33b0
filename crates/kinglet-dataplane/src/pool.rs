//! Connections to containers.
//!
//! HTTP/1: a connection carries one exchange at a time and is driven by the task of that exchange: no task of its own,
//! no hop between threads per request. While idle in its container's pool nobody drives it; it is asked whether it
//! still lives before it is used again. HTTP/2: few connections, shared, each driven by a task.

mod io;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Context;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::Instant;

pub(crate) use io::{ExchangeLog, RawTarget, UpstreamIo};

use crate::request_body::RequestBody;

/// One HTTP/1 connection, with its engine.
pub(crate) struct H1Connection {
    pub(crate) sender: http1::SendRequest<RequestBody>,
    /// `None` once it has ended: hyper gives a request back that it never began to send only when this is dropped.
    pub(crate) engine: Option<http1::Connection<TokioIo<UpstreamIo>, RequestBody>>,
    pub(crate) idle_since: Instant,
    pub(crate) log: Arc<ExchangeLog>,
}

impl H1Connection {
    /// Moves bytes; `true` when the connection has ended.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(engine) = &mut self.engine
            && Pin::new(engine).poll(cx).is_ready()
        {
            self.engine = None;
        }
        self.engine.is_none()
    }

    /// Whether it can take another request; notices a container that has hung up.
    pub(crate) fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        !self.drive(cx) && self.sender.is_ready()
    }
}

/// The HTTP/2 connections of one container.
#[derive(Default)]
pub(crate) struct H2Pool {
    connections: Mutex<Vec<PooledConnection>>,
    /// One connects at a time; the others then share what it made.
    pub(crate) connecting: tokio::sync::Mutex<()>,
}

struct PooledConnection {
    sender: http2::SendRequest<RequestBody>,
    streams: Arc<AtomicU32>,
    used: bool,
}

/// One stream of a shared connection.
pub(crate) struct StreamGuard {
    open: Arc<AtomicU32>,
    reused: bool,
}

impl StreamGuard {
    /// Whether the connection carried other streams before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl H2Pool {
    /// The least busy connection, if one has fewer than `streams_max` streams.
    pub(crate) fn share(
        &self,
        streams_max: u32,
    ) -> Option<(http2::SendRequest<RequestBody>, StreamGuard)> {
        let mut connections = self.connections.lock();
        connections.retain(|connection| !connection.sender.is_closed());
        let connection = connections
            .iter_mut()
            .min_by_key(|connection| connection.streams.load(Ordering::Relaxed))?;
        if connection.streams.load(Ordering::Relaxed) >= streams_max {
            return None;
        }
        connection.streams.fetch_add(1, Ordering::Relaxed);
        Some((
            connection.sender.clone(),
            StreamGuard {
                open: connection.streams.clone(),
                reused: std::mem::replace(&mut connection.used, true),
            },
        ))
    }

    pub(crate) fn add(&self, sender: http2::SendRequest<RequestBody>) {
        self.connections.lock().push(PooledConnection {
            sender,
            streams: Arc::default(),
            used: false,
        });
    }

    /// No new streams on the connection of `stream`; those that are open go on.
    pub(crate) fn discard(&self, stream: &StreamGuard) {
        self.connections
            .lock()
            .retain(|connection| !Arc::ptr_eq(&connection.streams, &stream.open));
    }

    pub(crate) fn clear(&self) {
        let connections = std::mem::take(&mut *self.connections.lock());
        drop(connections);
    }

    pub(crate) fn sweep(&self) {
        self.connections
            .lock()
            .retain(|connection| !connection.sender.is_closed());
    }
}
