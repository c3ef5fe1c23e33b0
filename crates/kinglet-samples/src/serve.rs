//! Listening, both HTTP versions on one port, and ending on SIGTERM.

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::raw_target::RawTargets;

/// A request as it comes in.
pub(crate) type Request = http::Request<Incoming>;
/// Any body.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
/// An answer.
pub(crate) type Answer = Response<Body>;

/// A plain text answer.
pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}

/// The local executor for h2: everything stays on the one thread.
#[derive(Clone)]
struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Serves the sample until SIGTERM or SIGINT; requests under way are finished.
pub(crate) async fn run(name: String) -> Result<(), String> {
    tokio::task::LocalSet::new()
        .run_until(accept(name.into()))
        .await
}

async fn accept(name: Rc<str>) -> Result<(), String> {
    let port: u16 = match std::env::var("PORT") {
        Ok(text) => text
            .parse()
            .map_err(|_| format!("PORT is {text:?}, which is no port number"))?,
        Err(_) => 8080,
    };
    // Before anybody can know that we run: the kernel drops signals to process 1 that it has no handler for.
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let listener = match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("0.0.0.0", port))
            .await
            .map_err(|error| format!("listening on port {port}: {error}"))?,
    };
    eprintln!("{name}: listening on port {port}");
    let graceful = hyper_util::server::graceful::GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors: those in use come back.
                Err(_) => { tokio::time::sleep(std::time::Duration::from_millis(10)).await; continue; }
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let _ = stream.set_nodelay(true);
        let name = Rc::clone(&name);
        let service = service_fn(move |request| {
            let name = Rc::clone(&name);
            async move { Ok::<_, Infallible>(crate::answer(&name, request).await) }
        });
        let builder = hyper_util::server::conn::auto::Builder::new(Local);
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(RawTargets::new(stream)), service)
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(300), graceful.shutdown()).await;
    Ok(())
}
