//! Taking connections from a listener that lives on: what fails is said and tried again, and what is beyond the bound
//! waits in the kernel's backlog.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pause after `accept` failed for want of file descriptors or memory; other connections free some.
const PAUSE: Duration = Duration::from_millis(50);

/// A socket that connections come from.
pub trait Listener {
    /// A connection, and what is known of who made it.
    type Connection;

    /// The next connection, or why there is none.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Listener for TcpListener {
    type Connection = (TcpStream, SocketAddr);

    async fn accept(&self) -> io::Result<Self::Connection> {
        Self::accept(self).await
    }
}

impl Listener for UnixListener {
    type Connection = UnixStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        Ok(Self::accept(self).await?.0)
    }
}

/// The next connection. `to` is what the connection is to, for the log. Nothing is lost when this is dropped.
pub async fn next<L: Listener>(listener: &L, to: &str) -> L::Connection {
    loop {
        match listener.accept().await {
            Ok(connection) => return connection,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection to the {to}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A listener with so many places for connections.
#[derive(Debug)]
pub struct Acceptor<L> {
    listener: L,
    to: &'static str,
    places: Arc<Semaphore>,
}

impl<L: Listener> Acceptor<L> {
    /// At most `connections_max` at once. `to` is what the connections are to, for the log.
    pub fn new(listener: L, to: &'static str, connections_max: usize) -> Self {
        Self {
            listener,
            to,
            places: Arc::new(Semaphore::new(connections_max)),
        }
    }

    /// The next connection, with its place: that is free again when the permit is dropped. Nothing is lost when this is
    /// dropped.
    pub async fn next(&self) -> (L::Connection, OwnedSemaphorePermit) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        (next(&self.listener, self.to).await, place)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers with the number of the call; every second call fails.
    #[derive(Default)]
    struct Failing(AtomicUsize);

    impl Listener for Failing {
        type Connection = usize;

        async fn accept(&self) -> io::Result<usize> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                even if even.is_multiple_of(2) => Err(io::Error::other("no descriptors")),
                odd => Ok(odd),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_costs_a_pause() {
        let (listener, began) = (Failing::default(), tokio::time::Instant::now());
        assert_eq!(next(&listener, "a test").await, 1);
        assert_eq!(next(&listener, "a test").await, 3);
        assert!(began.elapsed() >= PAUSE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_bound_nothing_is_accepted() {
        let acceptor = Acceptor::new(Failing::default(), "a test", 2);
        let (_, first) = acceptor.next().await;
        let (_, _second) = acceptor.next().await;
        let calls = acceptor.listener.0.load(Ordering::Relaxed);
        let third = tokio::time::timeout(Duration::from_secs(60), acceptor.next()).await;
        assert!(third.is_err());
        assert_eq!(acceptor.listener.0.load(Ordering::Relaxed), calls);
        drop(first);
        assert_eq!(acceptor.next().await.0, calls + 1);
    }
}
