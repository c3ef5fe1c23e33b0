//! Memory that the process no longer needs goes back to the system.
//!
//! Flow: the caches drop typed copies that nobody reads -> when that was much, and it is calm -> the allocator gives free
//! pages back. Once after the start, the pages of the program that only the start has needed go too. The store's history of
//! a burst goes when no watcher should need it any more.

use std::collections::VecDeque;
use std::num::NonZero;
use std::time::Duration;

use kinglet_process::Tasks;
use kinglet_reconcile::Caches;
use kinglet_store::Store;

/// JSON of dropped copies that is worth looking through the heap for: about four times as much of it is free.
const WORTH: u64 = 1 << 20;
/// Changes come in bursts; the heap is looked through after them.
const CALM: Duration = Duration::from_secs(5);
/// At least so long between two times.
const PAUSE: Duration = Duration::from_secs(30);

/// How often it is looked at what the store's history holds.
const HISTORY_LOOK: Duration = Duration::from_secs(25);
/// A change is kept for so many looks: 75 to 100 seconds, and a watch cache of Kubernetes takes 75 for fresh. Bookmarks
/// come each minute, so a client that comes back with its last one is not too late.
const HISTORY_LOOKS: usize = 3;
/// Bytes of forgotten history that are worth looking through the heap for.
const HISTORY_WORTH: usize = 1 << 20;

/// An arena for each core, for a whole Kinglet; one for two of them, for a component, whose threads hold little.
pub(crate) fn limit_arenas(component: bool) {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let arenas = if component { cores.div_ceil(2) } else { cores };
    kinglet_node::limit_arenas(NonZero::new(arenas).unwrap_or(NonZero::<usize>::MIN));
}

/// Gives back what the caches have dropped.
pub(crate) fn follow(caches: &Caches, tasks: &Tasks) {
    let mut dropped = caches.dropped();
    tasks.component_cancellable("heap", async move {
        tokio::time::sleep(CALM).await;
        if let Err(error) = kinglet_node::release_start_pages() {
            tracing::debug!(%error, "the pages of the start stay in memory");
        }
        let mut given = 0;
        loop {
            let enough = |total: &u64| *total >= given + WORTH;
            if dropped.wait_for(enough).await.is_err() {
                // The caches are gone, and with them what could be dropped.
                return std::future::pending().await;
            }
            tokio::time::sleep(CALM).await;
            given = *dropped.borrow_and_update();
            give_back().await;
            tokio::time::sleep(PAUSE).await;
        }
    });
}

/// Gives back what the store's history holds of bursts.
pub(crate) fn follow_history(store: Store, tasks: &Tasks) {
    tasks.component_cancellable("history", async move {
        let mut seen: VecDeque<u64> = VecDeque::new();
        loop {
            tokio::time::sleep(HISTORY_LOOK).await;
            seen.push_back(store.revision());
            let full = seen.len() > HISTORY_LOOKS;
            let old = seen.pop_front_if(|_| full);
            if old.is_some_and(|old| store.rest(old) >= HISTORY_WORTH) {
                give_back().await;
            }
        }
    });
}

/// On a thread of its own: threads of the arena under work wait for it.
async fn give_back() {
    let began = tokio::time::Instant::now();
    if tokio::task::spawn_blocking(kinglet_node::give_back)
        .await
        .is_ok()
    {
        tracing::debug!(
            milliseconds = began.elapsed().as_millis(),
            "free memory given back"
        );
    }
}
