//! A component's small HTTP servers beside its traffic: `/wait-for-drain`, `/ready`, statistics.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kinglet_process::Tasks;
use kinglet_process::accept::Acceptor;
use tokio::net::TcpListener;

/// Connections at once; the kubelet, a scraper and a person need a handful, and the rest waits in the kernel's backlog.
const CONNECTIONS_MAX: usize = 64;
/// A head that is not here by then is not waited for.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) type Answer = Response<Full<Bytes>>;

/// Serves `answer` on `listener` until `tasks` are cancelled; what is being answered then may end by itself.
pub(crate) fn serve<A, F>(tasks: &Tasks, name: &'static str, listener: TcpListener, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let connections = tasks.clone();
    tasks.component_cancellable(name, async move {
        let acceptor = Acceptor::new(listener, name, CONNECTIONS_MAX);
        loop {
            let ((stream, _), permit) = acceptor.next().await;
            let answer = answer.clone();
            let stop = connections.token();
            connections.spawn(name, async move {
                let _permit = permit;
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let mut builder = http1::Builder::new();
                builder
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT);
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                let mut connection = std::pin::pin!(connection);
                let outcome = tokio::select! {
                    outcome = connection.as_mut() => outcome,
                    () = stop.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = outcome {
                    tracing::debug!(%error, "connection of the {name} ended");
                }
            });
        }
    });
}

/// A plain text answer.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}
