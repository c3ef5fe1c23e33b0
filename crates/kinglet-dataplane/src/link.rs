//! Connections to containers.
//!
//! HTTP/1: a connection carries one exchange at a time and is driven by the task of that exchange: no task of its own,
//! no hop between threads per request. While idle in its container's pool nobody drives it; it is asked whether it
//! still lives before it is used again. HTTP/2: few connections, shared, each driven by a task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Context;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::upload::Upload;

/// One HTTP/1 connection, with its engine.
pub(crate) struct H1Link {
    pub(crate) sender: http1::SendRequest<Upload>,
    pub(crate) engine: http1::Connection<TokioIo<TcpStream>, Upload>,
    pub(crate) idle_since: Instant,
}

impl H1Link {
    /// Moves bytes; `true` when the connection has ended.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        Pin::new(&mut self.engine).poll(cx).is_ready()
    }

    /// Whether it can take another request; notices a container that has hung up.
    pub(crate) fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        !self.drive(cx) && self.sender.is_ready()
    }
}

/// The HTTP/2 connections of one container.
#[derive(Default)]
pub(crate) struct H2Links {
    links: Mutex<Vec<H2Link>>,
    /// One connects at a time; the others then share what it made.
    pub(crate) connecting: tokio::sync::Mutex<()>,
}

struct H2Link {
    sender: http2::SendRequest<Upload>,
    streams: Arc<AtomicU32>,
}

/// One stream of a shared connection.
pub(crate) struct Stream(Arc<AtomicU32>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl H2Links {
    /// The least busy connection, if one has fewer than `streams_max` streams.
    pub(crate) fn share(&self, streams_max: u32) -> Option<(http2::SendRequest<Upload>, Stream)> {
        let mut links = self.links.lock();
        links.retain(|link| !link.sender.is_closed());
        let link = links
            .iter()
            .min_by_key(|link| link.streams.load(Ordering::Relaxed))?;
        if link.streams.load(Ordering::Relaxed) >= streams_max {
            return None;
        }
        link.streams.fetch_add(1, Ordering::Relaxed);
        Some((link.sender.clone(), Stream(link.streams.clone())))
    }

    pub(crate) fn add(&self, sender: http2::SendRequest<Upload>) {
        self.links.lock().push(H2Link {
            sender,
            streams: Arc::default(),
        });
    }

    /// No new streams on the connection of `stream`; those that are open go on.
    pub(crate) fn discard(&self, stream: &Stream) {
        self.links
            .lock()
            .retain(|link| !Arc::ptr_eq(&link.streams, &stream.0));
    }

    pub(crate) fn clear(&self) {
        let links = std::mem::take(&mut *self.links.lock());
        drop(links);
    }

    pub(crate) fn sweep(&self) {
        self.links.lock().retain(|link| !link.sender.is_closed());
    }
}
