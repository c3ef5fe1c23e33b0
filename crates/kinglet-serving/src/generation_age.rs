//! How long a controller has known the present generation of an object.
//!
//! A verdict of False about a generation is not written before the generation is [`VERDICT_DELAY`] old. Clients such
//! as kn write an object, read it, and then count only the changes that follow; a verdict that was committed before
//! their read would leave them waiting until their timeout. Until then the status says what Knative says while the
//! children are at work. A verdict of True never waits, since such clients look at what they read first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kinglet_reconcile::{Key, Object, key_of, uid_of};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Age of a generation from which a verdict of False is written. kn's own error window is two seconds, so a failure
/// that is told after one second ends the command as soon as one that is told at once.
pub(crate) const VERDICT_DELAY: Duration = Duration::from_secs(1);

/// Remembers when each object's generation was first reconciled. Bounded by the objects that exist: one entry each,
/// dropped by [`GenerationAges::forget`]. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct GenerationAges(Arc<Mutex<HashMap<Key, FirstSeen>>>);

#[derive(Debug)]
struct FirstSeen {
    uid: String,
    generation: i64,
    at: Option<Instant>,
}

impl GenerationAges {
    /// How long until a verdict of False may be written about `object`; zero when it may be written now.
    ///
    /// `observed_generation` is the one in the object's status: a generation that was reported on before this process
    /// started is not new.
    pub(crate) fn hold<K: Object>(&self, object: &K, observed_generation: i64) -> Duration {
        let (uid, generation) = (uid_of(object), object.meta().generation.unwrap_or(0));
        let mut all = self.0.lock();
        let entry = all.entry(key_of(object)).or_insert_with(|| FirstSeen {
            uid: uid.to_owned(),
            generation,
            at: (observed_generation != generation).then(Instant::now),
        });
        if entry.uid != uid || entry.generation != generation {
            *entry = FirstSeen {
                uid: uid.to_owned(),
                generation,
                at: Some(Instant::now()),
            };
        }
        entry.at.map_or(Duration::ZERO, |at| {
            VERDICT_DELAY.saturating_sub(at.elapsed())
        })
    }

    /// Forgets an object that is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet_api::serving::Service;
    use serde_json::json;

    fn service(uid: &str, generation: i64) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "hello", "namespace": "a", "uid": uid, "generation": generation},
            "spec": {"template": {"spec": {"containers": [{"image": "x:1"}]}}},
        }))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_generation_is_held_for_a_second_and_an_old_one_is_not() {
        let ages = GenerationAges::default();
        let first = service("u", 1);
        assert_eq!(ages.hold(&first, 0), VERDICT_DELAY);
        tokio::time::advance(Duration::from_millis(400)).await;
        assert_eq!(ages.hold(&first, 1), Duration::from_millis(600));
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(ages.hold(&first, 1), Duration::ZERO);
        assert_eq!(
            ages.hold(&service("u", 2), 1),
            VERDICT_DELAY,
            "a new generation"
        );
        assert_eq!(
            ages.hold(&service("v", 2), 2),
            VERDICT_DELAY,
            "another object of the same name"
        );
        ages.forget(&key_of(&first));
        assert_eq!(
            ages.hold(&first, 1),
            Duration::ZERO,
            "reported on before this process started"
        );
    }
}
