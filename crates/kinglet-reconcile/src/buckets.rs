//! Buckets of keys, each with a Lease of its own: how several replicas divide the work.
//!
//! Names and assignment are Knative's (`{component}.{queue}.{ii}-of-{nn}`), so that a Kinglet and an upstream replica of
//! one component never work on one key at the same time.

use std::sync::Arc;
use std::time::Duration;

use kinglet_decide::scale::subset;

use crate::object::Key;

/// Most buckets of a component, as in Knative's `config-leader-election`.
const BUCKETS_MAX: usize = 10;

/// How long a Lease lasts and how it is kept; the defaults are Knative's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTiming {
    /// How long a Lease that is not renewed is respected.
    pub lease_duration: Duration,
    /// How long a leader works on after its last renewal; shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// How often it is tried, and how long one try may take.
    pub retry_period: Duration,
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(60),
            renew_deadline: Duration::from_secs(40),
            retry_period: Duration::from_secs(10),
        }
    }
}

/// The buckets of one component and who stands for them.
#[derive(Clone, Debug)]
pub struct Buckets {
    namespace: Arc<str>,
    names: Arc<[String]>,
    pub(crate) identity: Arc<str>,
    pub(crate) timing: LeaseTiming,
}

impl Buckets {
    /// The buckets of a controller's queue: Leases `{component}.{queue}.{ii}-of-{nn}`, in lower case. The identity is
    /// different in each replica.
    pub fn of_queue(
        namespace: &str,
        component: &str,
        queue: &str,
        count: usize,
        identity: &str,
    ) -> Self {
        let prefix = format!("{component}.{queue}.").to_lowercase();
        Self::with_prefix(namespace, &prefix, count, identity)
    }

    /// The buckets of the autoscaler: Leases `autoscaler-bucket-{ii}-of-{nn}`.
    pub fn of_autoscaler(namespace: &str, count: usize, identity: &str) -> Self {
        Self::with_prefix(namespace, "autoscaler-bucket-", count, identity)
    }

    /// Buckets with other Lease names, such as those of `map-lease-prefix`; the prefix ends with its separator. There is
    /// at least one bucket and at most ten.
    pub fn with_prefix(namespace: &str, prefix: &str, count: usize, identity: &str) -> Self {
        let count = count.clamp(1, BUCKETS_MAX);
        let name = |bucket| format!("{prefix}{bucket:02}-of-{count:02}");
        Self {
            namespace: namespace.into(),
            names: (0..count).map(name).collect(),
            identity: identity.into(),
            timing: LeaseTiming::default(),
        }
    }

    /// The same with other durations.
    #[must_use]
    pub fn timed(mut self, timing: LeaseTiming) -> Self {
        self.timing = timing;
        self
    }

    /// How many buckets there are.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// The Lease of a bucket.
    pub fn lease(&self, bucket: usize) -> Key {
        let name = self.names.get(bucket).map_or("", String::as_str);
        Key::new(Arc::clone(&self.namespace), name)
    }

    /// The bucket that a key belongs to.
    pub fn of(&self, key: &Key) -> usize {
        if self.names.len() == 1 {
            return 0;
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let target = format!("{}/{}", key.namespace, key.name);
        let chosen = subset::choose(&names, 1, &target);
        let chosen = chosen.first().copied().unwrap_or_default();
        names
            .iter()
            .position(|name| *name == chosen)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What upstream assigns.
    #[test]
    fn keys_belong_to_the_buckets_that_knative_gives_them() {
        let two = Buckets::of_autoscaler("knative-serving", 2, "me");
        let three = Buckets::of_autoscaler("knative-serving", 3, "me");
        let queue = "knative.dev.serving.pkg.reconciler.Service.Reconciler";
        let services = Buckets::of_queue("knative-serving", "controller", queue, 3, "me");
        let autoscaler = |of: &'static str| format!("autoscaler-bucket-{of}");
        let service = |of: &'static str| {
            format!("controller.knative.dev.serving.pkg.reconciler.service.reconciler.{of}")
        };
        let cases = [
            (&two, "default", "hello-00001", autoscaler("01-of-02")),
            (&two, "default", "hello-00002", autoscaler("01-of-02")),
            (&two, "team-a", "api-00007", autoscaler("01-of-02")),
            (&three, "default", "hello-00001", autoscaler("00-of-03")),
            (&three, "default", "hello-00002", autoscaler("01-of-03")),
            (&three, "team-a", "api-00007", autoscaler("02-of-03")),
            (&services, "default", "hello", service("02-of-03")),
            (&services, "default", "world", service("02-of-03")),
        ];
        for (buckets, namespace, name, expected) in cases {
            let lease = buckets.lease(buckets.of(&Key::new(namespace, name)));
            assert_eq!(*lease.namespace, *"knative-serving");
            assert_eq!(*lease.name, *expected, "{namespace}/{name}");
        }
    }

    #[test]
    fn there_is_always_a_bucket() {
        for (asked, count) in [(0, 1), (1, 1), (10, 10), (11, 10)] {
            assert_eq!(Buckets::of_autoscaler("n", asked, "me").count(), count);
        }
        let one = Buckets::of_autoscaler("n", 1, "me");
        assert_eq!(one.of(&Key::new("", "x")), 0);
        assert_eq!(*one.lease(0).name, *"autoscaler-bucket-00-of-01");
    }
}
