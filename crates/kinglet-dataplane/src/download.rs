//! A container's answer on its way to the client.
//!
//! Drives the container's connection while it is read, watches the Revision's clocks (spec/serving.md 6.3.4), and at the
//! end returns the connection to its container and frees the seat. Dropped early (the client has gone), it closes the
//! connection: HTTP/1 has no other way to stop a container's answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::link::{H1Link, Stream};
use crate::listen::Busy;
use crate::lobby::Visit;

/// Why an answer ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    #[error("the container broke off its answer")]
    Container(#[source] hyper::Error),
    #[error("request timeout")]
    Timeout,
}

/// Who moves the bytes of the container's connection.
pub(crate) enum Driver {
    /// Whoever reads the answer; the connection can be used again.
    Reader(Box<H1Link>),
    /// A task of its own, to the connection's end.
    Task,
    /// A shared connection's task; the stream counts there until dropped.
    Shared(#[expect(dead_code, reason = "held for its drop")] Stream),
}

/// When an answer that has begun is cut.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clocks {
    pub(crate) total: Option<Instant>,
    pub(crate) idle: Option<Duration>,
}

/// What is told to a client whose answer has begun when its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// The message, appended.
    Text,
    /// A gRPC status.
    Grpc,
    /// The length was promised, so the connection breaks.
    Break,
}

/// An answer being read.
pub(crate) struct Download {
    incoming: Incoming,
    driver: Option<Driver>,
    visit: Option<Visit>,
    busy: Option<Busy>,
    /// A frame that was read ahead.
    held: Option<Result<Frame<Bytes>, Cut>>,
    clocks: Clocks,
    farewell: Farewell,
    written_at: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
    finished: bool,
}

impl Download {
    pub(crate) fn new(
        incoming: Incoming,
        driver: Driver,
        visit: Visit,
        clocks: Clocks,
        farewell: Farewell,
    ) -> Self {
        Self {
            incoming,
            driver: Some(driver),
            visit: Some(visit),
            busy: None,
            held: None,
            clocks,
            farewell,
            written_at: Instant::now(),
            alarm: None,
            finished: false,
        }
    }

    /// Keeps the client's connection from counting as idle.
    pub(crate) fn keep_busy(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }

    /// Reads what is there already: all of a short answer comes out here, without a stream to the client.
    pub(crate) fn read_ahead(&mut self, cx: &mut Context<'_>) -> Option<Option<Bytes>> {
        if self.incoming.is_end_stream() {
            self.finish(cx);
            return Some(None);
        }
        match self.poll_next(cx) {
            Poll::Ready(None) => Some(None),
            Poll::Ready(Some(Ok(frame))) if self.finished && frame.is_data() => {
                Some(frame.into_data().ok())
            }
            Poll::Ready(Some(frame)) => {
                self.held = Some(frame);
                None
            }
            Poll::Pending => None,
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished && self.held.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.held {
            None => self.incoming.size_hint(),
            Some(frame) => {
                let held = frame
                    .as_ref()
                    .ok()
                    .and_then(Frame::data_ref)
                    .map_or(0, |data| data.len() as u64);
                self.incoming
                    .size_hint()
                    .exact()
                    .map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + held))
            }
        }
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(frame) = self.held.take() {
            return Poll::Ready(Some(frame));
        }
        if self.finished {
            return Poll::Ready(None);
        }
        let mut driven = false;
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(frame) => return Poll::Ready(self.pass(frame, cx)),
                Poll::Pending if driven => break,
                Poll::Pending => {}
            }
            match &mut self.driver {
                Some(Driver::Reader(link)) => {
                    if link.drive(cx) {
                        // The connection has ended; what it still had to say is in the body now.
                        self.driver = Some(Driver::Task);
                    }
                    driven = true;
                }
                Some(Driver::Task | Driver::Shared(_)) | None => break,
            }
        }
        self.watch(cx)
    }

    fn pass(
        &mut self,
        frame: Option<Result<Frame<Bytes>, hyper::Error>>,
        cx: &mut Context<'_>,
    ) -> Option<Result<Frame<Bytes>, Cut>> {
        match frame {
            Some(Ok(frame)) => {
                if self.incoming.is_end_stream() {
                    self.finish(cx);
                } else if self.clocks.idle.is_some() {
                    self.written_at = Instant::now();
                    self.alarm = None;
                }
                Some(Ok(frame))
            }
            None => {
                self.finish(cx);
                None
            }
            Some(Err(error)) => {
                self.abandon();
                Some(Err(Cut::Container(error)))
            }
        }
    }

    /// Nothing to read yet: is the time up?
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let idle = self.clocks.idle.map(|idle| self.written_at + idle);
        let Some(deadline) = [self.clocks.total, idle].into_iter().flatten().min() else {
            return Poll::Pending;
        };
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        std::task::ready!(alarm.as_mut().poll(cx));
        self.abandon();
        Poll::Ready(Some(match self.farewell {
            Farewell::Text => Ok(Frame::data(Bytes::from_static(b"request timeout"))),
            Farewell::Grpc => Ok(Frame::trailers(deadline_exceeded())),
            Farewell::Break => Err(Cut::Timeout),
        }))
    }

    /// The end of the answer: the connection may serve again, and the seat is free.
    fn finish(&mut self, cx: &mut Context<'_>) {
        self.finished = true;
        self.alarm = None;
        if let Some(Driver::Reader(mut link)) = self.driver.take()
            && link.is_usable(cx)
            && let Some(visit) = &self.visit
        {
            let idle_max = visit.lobby().wiring().options.idle_links_max;
            visit.container().keep_idle(link, idle_max);
        }
        self.visit = None;
        self.busy = None;
    }

    /// The end before its time: the connection is closed.
    fn abandon(&mut self) {
        self.finished = true;
        self.alarm = None;
        self.driver = None;
        self.visit = None;
        self.busy = None;
    }
}

fn deadline_exceeded() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("4"),
    );
    trailers.insert(
        HeaderName::from_static("grpc-message"),
        HeaderValue::from_static("request timeout"),
    );
    trailers
}
