//! A gate before all controllers of a process: at a start they begin when what serves requests has begun.
//!
//! After a restart with thousands of objects every controller looks at each of its own. Requests that come meanwhile need
//! the routes, not the controllers, so the routes go first.

use std::time::Duration;

use tokio::sync::watch;

/// How long a controller whose caches are complete waits at a closed gate: objects that need it are not left alone because
/// the gateway does not come up.
const CLOSED_MAX: Duration = Duration::from_secs(2);

/// Where controllers wait. Cheap to clone; clones are one.
#[derive(Clone, Debug)]
pub struct Gate(watch::Receiver<bool>);

/// Opens a [`Gate`]; dropped, it opens it, too.
#[derive(Debug)]
pub struct GateOpener(watch::Sender<bool>);

impl Gate {
    /// One that is open.
    pub fn open() -> Self {
        Self::closed().1
    }

    /// One that is closed until it is opened.
    pub fn closed() -> (GateOpener, Self) {
        let (sender, receiver) = watch::channel(false);
        (GateOpener(sender), Self(receiver))
    }

    /// Waits until the gate is open, or long enough.
    pub async fn pass(&self) {
        let mut open = self.0.clone();
        // Whoever would have opened it is gone, or time is up: both are as good as open.
        let _ = tokio::time::timeout(CLOSED_MAX, open.wait_for(|open| *open)).await;
    }
}

impl GateOpener {
    /// Lets all controllers begin.
    pub fn open(self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_gate_is_passed_when_it_opens_or_after_a_while() {
        let began = Instant::now();
        Gate::open().pass().await;
        let (opener, gate) = Gate::closed();
        opener.open();
        gate.pass().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        let (_opener, gate) = Gate::closed();
        gate.pass().await;
        assert_eq!(began.elapsed().as_secs(), CLOSED_MAX.as_secs());
    }
}
