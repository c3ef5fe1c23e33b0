//! How long Events are kept, and how many: they are made by everything that goes wrong, and nobody deletes them.

use std::time::Duration;

use jiff::Timestamp;
use kinglet_store::{Durability, Expect};
use serde_json::Value;

use crate::object::{self, text};
use crate::state::ServerState;

/// The life of an Event after its last change, as `--event-ttl` of Kubernetes.
const LIFE: Duration = Duration::from_secs(3600);
/// How often old ones are looked for.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Events about one object: what `kubectl describe` can show anybody.
const PER_OBJECT_MAX: usize = 100;
/// Events of one namespace: at 1 kB each a megabyte.
const PER_NAMESPACE_MAX: usize = 1000;
/// After a bound is met, as many are kept, so that not every further Event is a sweep.
const KEPT_PERCENT: usize = 90;

const FOLDER: &str = "core/events/";

/// Removes Events whose last change is longer ago than they live.
pub(crate) fn expire(server: &ServerState) {
    let now = server.options.clock.now();
    let oldest = now
        .checked_sub(jiff::SignedDuration::try_from(LIFE).unwrap_or_default())
        .unwrap_or(now);
    for (key, event) in events(server, FOLDER) {
        if last_change(&event).is_some_and(|time| time < oldest) {
            remove(server, &key);
        }
    }
}

/// Keeps the Events about an object and those of its namespace within their bounds, once an Event is stored.
pub(crate) fn bound(server: &ServerState, event: &Value) {
    let namespace = format!("{FOLDER}{}/", object::namespace(event));
    // Events are named after their object: NAME.HASH.
    let about = format!("{namespace}{}.", text(event, &["involvedObject", "name"]));
    for (prefix, most) in [(about, PER_OBJECT_MAX), (namespace, PER_NAMESPACE_MAX)] {
        if server.store.count(&prefix) <= most {
            continue;
        }
        let mut found = events(server, &prefix);
        found.sort_by_key(|(_, event)| last_change(event));
        let surplus = found.len().saturating_sub(most * KEPT_PERCENT / 100);
        for (key, _) in found.iter().take(surplus) {
            remove(server, key);
        }
    }
}

fn events(server: &ServerState, prefix: &str) -> Vec<(std::sync::Arc<str>, Value)> {
    let page = server.store.list(prefix, None, 0, None);
    page.map(|page| page.entries)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(key, entry)| Some((key, serde_json::from_slice(&entry.value).ok()?)))
        .collect()
}

/// The latest of the times in an Event.
fn last_change(event: &Value) -> Option<Timestamp> {
    [
        &["lastTimestamp"][..],
        &["series", "lastObservedTime"],
        &["eventTime"],
        &["firstTimestamp"],
        &["metadata", "creationTimestamp"],
    ]
    .iter()
    .filter_map(|path| text(event, path).parse::<Timestamp>().ok())
    .max()
}

fn remove(server: &ServerState, key: &str) {
    let Some(entry) = server.store.get(key) else {
        return;
    };
    // One that changes at this moment is looked at again in the next round.
    let _ = server.store.delete(
        key,
        Expect::Revision(entry.modified),
        Durability::Memory,
        |revision| object::restamp(&entry.value, revision),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet_process::Clock;
    use kinglet_store::Store;
    use serde_json::json;

    use crate::options::Options;
    use crate::server::ApiServer;

    #[tokio::test(start_paused = true)]
    async fn an_event_ends_an_hour_after_its_last_change() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let options = Options {
            clock: Clock::simulated(start),
            ..Options::default()
        };
        let api = ApiServer::new(Store::in_memory(ApiServer::store_options()), options);
        let put = |name: &str, time: &str| {
            let event =
                json!({"metadata": {"name": name, "namespace": "a"}, "lastTimestamp": time});
            let key = format!("{FOLDER}a/{name}");
            let put = api.store().put(&key, Expect::Any, Durability::Memory, |_| {
                event.to_string().into()
            });
            let _written = put.unwrap();
        };
        put("early", "2026-01-01T00:00:00Z");
        put("late", "2026-01-01T00:30:00Z");
        put("timeless", "");
        let left = || {
            expire(&api.server);
            let all = events(&api.server, FOLDER);
            all.into_iter()
                .map(|(key, _)| key.rsplit('/').next().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        tokio::time::advance(LIFE).await;
        assert_eq!(left(), ["early", "late", "timeless"]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(left(), ["late", "timeless"]);
        // It was seen again in the meantime.
        put("late", "2026-01-01T01:00:00Z");
        tokio::time::advance(LIFE / 2).await;
        assert_eq!(left(), ["late", "timeless"]);
        tokio::time::advance(LIFE).await;
        assert_eq!(left(), ["timeless"], "one without any time is left alone");
    }
}
