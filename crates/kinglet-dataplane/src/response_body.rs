//! A container's answer on its way to the client.
//!
//! Drives the container's connection while it is read, watches the Revision's timeouts (spec/serving.md 6.3.4), and at the
//! end returns the connection to its container and frees the slot. Dropped early (the client has gone), it closes the
//! connection: HTTP/1 has no other way to stop a container's answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use kinglet_decide::call::BoxError;
use tokio::time::{Instant, Sleep};

use crate::breaker::Slot;
use crate::listen::ActiveRequest;
use crate::pool::{H1Connection, StreamGuard};
use crate::request_log::PendingEntry;

/// What has been passed on may still be in a buffer of ours when the rest fails, and hyper drops its buffers with the
/// failure. The client is to have what the container sent, so the failure waits this long.
pub(crate) const FLUSH_PAUSE: Duration = Duration::from_millis(5);

/// Why an answer ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the container broke off its answer")]
    Container(#[source] hyper::Error),
    #[error("a local service broke off its answer: {0}")]
    Local(BoxError),
    #[error("request timeout")]
    Timeout,
}

/// Who moves the bytes of the container's connection.
pub(crate) enum ConnectionDriver {
    /// Whoever reads the answer; the connection can be used again.
    Reader(Box<H1Connection>),
    /// A task of its own, to the connection's end.
    Task,
    /// A shared connection's task; the stream counts there until dropped.
    Shared(#[expect(dead_code, reason = "held for its drop")] StreamGuard),
}

/// When an answer that has begun is cut.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timeouts {
    pub(crate) total: Option<Instant>,
    pub(crate) idle: Option<Duration>,
}

/// What is told to a client whose answer has begun when its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeoutResponse {
    /// The message, appended.
    AppendText(&'static str),
    /// A gRPC status with the message.
    GrpcStatus(&'static str),
    /// The length was promised, so the connection breaks.
    Abort,
}

/// An answer being read.
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    driver: Option<ConnectionDriver>,
    slot: Option<Slot>,
    active: Option<ActiveRequest>,
    /// The request's entry in the log; complete when the response has ended.
    log: Option<Box<PendingEntry>>,
    /// A frame that was read ahead.
    held: Option<Frame<Bytes>>,
    /// Why it ends early, when the client is to know.
    failure: Option<StreamError>,
    timeouts: Timeouts,
    timeout_response: TimeoutResponse,
    written_at: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
    finished: bool,
}

impl UpstreamBody {
    pub(crate) fn new(
        incoming: Incoming,
        driver: ConnectionDriver,
        slot: Slot,
        timeouts: Timeouts,
        timeout_response: TimeoutResponse,
    ) -> Self {
        Self {
            incoming,
            driver: Some(driver),
            slot: Some(slot),
            active: None,
            log: None,
            held: None,
            failure: None,
            timeouts,
            timeout_response,
            written_at: Instant::now(),
            alarm: None,
            finished: false,
        }
    }

    /// Keeps the entry of the request log open until the response has ended.
    pub(crate) fn keep_log(&mut self, log: Option<Box<PendingEntry>>) {
        self.log = log;
    }

    /// Keeps the client's connection from counting as idle.
    pub(crate) fn keep_active(&mut self, active: ActiveRequest) {
        self.active = Some(active);
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
            Poll::Ready(Some(Ok(frame))) => {
                self.held = Some(frame);
                None
            }
            Poll::Ready(Some(Err(failure))) => {
                self.fail(failure);
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
                let held = frame.data_ref().map_or(0, |data| data.len() as u64);
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
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if let Some(frame) = self.held.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.failure.is_some() {
            return self.poll_failure(cx);
        }
        if self.finished {
            return Poll::Ready(None);
        }
        let mut driven = false;
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(frame) => return self.pass(frame, cx),
                Poll::Pending if driven => break,
                Poll::Pending => {}
            }
            match &mut self.driver {
                Some(ConnectionDriver::Reader(connection)) => {
                    if connection.drive(cx) {
                        // The connection has ended; what it still had to say is in the body now.
                        self.driver = Some(ConnectionDriver::Task);
                    }
                    driven = true;
                }
                Some(ConnectionDriver::Task | ConnectionDriver::Shared(_)) | None => break,
            }
        }
        self.watch(cx)
    }

    fn pass(
        &mut self,
        frame: Option<Result<Frame<Bytes>, hyper::Error>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match frame {
            Some(Ok(frame)) => {
                if let (Some(log), Some(data)) = (&mut self.log, frame.data_ref()) {
                    log.response_bytes += data.len() as u64;
                }
                if self.incoming.is_end_stream() {
                    self.finish(cx);
                } else if self.timeouts.idle.is_some() {
                    self.written_at = Instant::now();
                    self.alarm = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.finish(cx);
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                self.fail(StreamError::Container(error));
                self.poll_failure(cx)
            }
        }
    }

    /// Ends the response early, in a way that the client notices, once it has had what came before.
    fn fail(&mut self, failure: StreamError) {
        self.abandon();
        self.finished = false;
        self.failure = Some(failure);
        self.alarm = Some(Box::pin(tokio::time::sleep(FLUSH_PAUSE)));
    }

    fn poll_failure(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if let Some(pause) = &mut self.alarm {
            std::task::ready!(pause.as_mut().poll(cx));
        }
        self.alarm = None;
        self.finished = true;
        Poll::Ready(self.failure.take().map(Err))
    }

    /// Called when there is nothing to read: ends the response when one of its timeouts has passed.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let idle = self.timeouts.idle.map(|idle| self.written_at + idle);
        let Some(deadline) = [self.timeouts.total, idle].into_iter().flatten().min() else {
            return Poll::Pending;
        };
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        std::task::ready!(alarm.as_mut().poll(cx));
        self.abandon();
        Poll::Ready(Some(match self.timeout_response {
            TimeoutResponse::AppendText(text) => {
                Ok(Frame::data(Bytes::from_static(text.as_bytes())))
            }
            TimeoutResponse::GrpcStatus(text) => Ok(Frame::trailers(deadline_exceeded(text))),
            TimeoutResponse::Abort => Err(StreamError::Timeout),
        }))
    }

    /// The end of the answer: the connection may serve again, and the slot is free.
    fn finish(&mut self, cx: &mut Context<'_>) {
        self.finished = true;
        self.alarm = None;
        if let Some(ConnectionDriver::Reader(mut connection)) = self.driver.take()
            && connection.is_usable(cx)
            && let Some(slot) = &self.slot
        {
            let idle_max = slot.breaker().context().options.idle_connections_max;
            slot.container().keep_idle(connection, idle_max);
        }
        self.slot = None;
        self.active = None;
        self.log = None;
    }

    /// The end before its time: the connection is closed.
    fn abandon(&mut self) {
        self.finished = true;
        self.alarm = None;
        self.driver = None;
        self.slot = None;
        self.active = None;
        self.log = None;
    }
}

fn deadline_exceeded(message: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("4"),
    );
    trailers.insert(
        HeaderName::from_static("grpc-message"),
        HeaderValue::from_static(message),
    );
    trailers
}
