//! Pure: what is known of one Revision's pods, and which of them an activator uses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use kinglet_decide::assign;
use kinglet_decide::feed::{Endpoint, Key, Protocol, RevisionBackend};

use crate::feed::FedRevision;

/// Pods by address and name.
#[derive(Debug, Default)]
pub(super) struct Pods(BTreeMap<PodId, Pod>);

/// Which pod is meant: an address is given to another pod soon after one has gone, and what was asked of the one before says
/// nothing about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodId {
    /// Of its queue-proxy.
    pub(super) address: SocketAddr,
    name: Arc<str>,
}

#[derive(Clone, Debug)]
struct Pod {
    ready: bool,
    /// May be asked before Kubernetes calls it ready.
    early: bool,
    healthy: bool,
    probing: bool,
}

impl Pods {
    /// Takes over what the feed says. A pod that was ready and is no longer must answer anew.
    pub(super) fn observe(&mut self, fed: &FedRevision) {
        let mut before = std::mem::take(&mut self.0);
        for (address, fed_pod) in &fed.pods {
            let id = PodId {
                address: *address,
                name: fed_pod.name.as_str().into(),
            };
            let mut pod = before.remove(&id).unwrap_or(Pod {
                ready: fed_pod.ready,
                early: false,
                healthy: false,
                probing: false,
            });
            if pod.ready && !fed_pod.ready {
                pod.healthy = false;
            }
            pod.ready = fed_pod.ready;
            pod.early = !fed.wait_for_readiness;
            self.0.insert(id, pod);
        }
    }

    /// Up to `most` pods to ask now; each is asked once at a time.
    pub(super) fn take_to_probe(&mut self, most: usize) -> Vec<PodId> {
        let unknown = self
            .0
            .iter_mut()
            .filter(|(_, pod)| !pod.healthy && !pod.probing && (pod.ready || pod.early));
        unknown
            .take(most)
            .map(|(id, pod)| {
                pod.probing = true;
                id.clone()
            })
            .collect()
    }

    /// What a probe said; `true` when the pod may be used from now on.
    pub(super) fn probed(&mut self, id: &PodId, healthy: bool) -> bool {
        let Some(pod) = self.0.get_mut(id) else {
            return false;
        };
        pod.probing = false;
        // What was asked before the feed took its word back does not count.
        let healthy = healthy && (pod.ready || pod.early);
        healthy && !std::mem::replace(&mut pod.healthy, healthy)
    }

    /// What the data plane of the activator `own` is to know.
    pub(super) fn backend(&self, key: &Key, fed: &FedRevision, own: IpAddr) -> RevisionBackend {
        let healthy = self.0.iter().filter(|(_, pod)| pod.healthy);
        let healthy: Vec<&PodId> = healthy.map(|(id, _)| id).collect();
        let place = fed
            .activators
            .iter()
            .position(|activator| *activator == own);
        let share = assign::share(
            fed.container_concurrency,
            healthy.len(),
            fed.activators.len(),
            place,
        );
        let endpoints = share.into_iter().map(|at| Endpoint {
            pod: Arc::clone(&healthy[at].name),
            address: healthy[at].address,
        });
        RevisionBackend {
            revision: key.clone(),
            configuration: fed.configuration.as_str().into(),
            container_concurrency: fed.container_concurrency,
            timeout: fed.timeout,
            response_start_timeout: fed.response_start_timeout,
            idle_timeout: fed.idle_timeout,
            // Passed on as it comes.
            protocol: Protocol::Http1,
            endpoints: endpoints.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Snapshot;

    fn fed(pods: &[(&str, bool)], more: &str) -> FedRevision {
        let pods: Vec<String> = pods
            .iter()
            .map(|(address, ready)| {
                format!(r#"{{"name":"{address}","address":"{address}:8012","ready":{ready}}}"#)
            })
            .collect();
        let line = format!(
            r#"{{"revision":{{"namespace":"ns","name":"one","timeoutSeconds":1,"containerConcurrency":1,"pods":[{}]{more}}}}}"#,
            pods.join(",")
        );
        let snapshot = Snapshot::parse(&line, 1).expect("a feed");
        snapshot.revisions.into_values().next().expect("one")
    }

    fn used(pods: &Pods, fed: &FedRevision, own: &str) -> Vec<String> {
        let own = own.parse().expect("an address");
        let backend = pods.backend(&Key::new("ns", "one"), fed, own);
        let names = backend.endpoints.iter();
        names.map(|endpoint| endpoint.pod.to_string()).collect()
    }

    fn all_answer(pods: &mut Pods) {
        for id in pods.take_to_probe(100) {
            assert!(pods.probed(&id, true));
        }
    }

    #[test]
    fn a_pod_is_used_once_its_queue_proxy_answers_and_asked_no_more() {
        let fed = fed(&[("10.0.0.1", true), ("10.0.0.2", false)], "");
        let mut pods = Pods::default();
        pods.observe(&fed);
        assert_eq!(used(&pods, &fed, "10.1.0.1"), [] as [&str; 0]);
        let asked = pods.take_to_probe(100);
        assert_eq!(asked.len(), 2, "not ready ones, too");
        assert!(pods.take_to_probe(100).is_empty(), "once at a time");
        assert!(!pods.probed(&asked[0], false));
        assert!(pods.probed(&asked[1], true));
        assert_eq!(used(&pods, &fed, "10.1.0.1"), ["10.0.0.2"]);
        pods.observe(&fed);
        assert_eq!(pods.take_to_probe(100), asked[..1]);
    }

    #[test]
    fn a_pod_that_is_ready_no_longer_must_answer_anew() {
        let ready = fed(&[("10.0.0.1", true)], "");
        let unready = fed(&[("10.0.0.1", false)], "");
        let mut pods = Pods::default();
        pods.observe(&ready);
        all_answer(&mut pods);
        pods.observe(&unready);
        assert_eq!(used(&pods, &unready, "10.1.0.1"), [] as [&str; 0]);
        all_answer(&mut pods);
        pods.observe(&unready);
        assert_eq!(used(&pods, &unready, "10.1.0.1"), ["10.0.0.1"]);
        pods.observe(&fed(&[], ""));
        assert!(pods.take_to_probe(100).is_empty());
    }

    #[test]
    fn what_a_pod_answered_says_nothing_about_the_next_one_with_its_address() {
        let first = fed(&[("10.0.0.1", true)], "");
        let mut next = first.clone();
        for pod in next.pods.values_mut() {
            pod.name = "next".to_owned();
        }
        let mut pods = Pods::default();
        pods.observe(&first);
        let asked = pods.take_to_probe(100);
        pods.observe(&next);
        assert!(!pods.probed(&asked[0], true), "the answer of the first");
        assert_eq!(used(&pods, &next, "10.1.0.1"), [] as [&str; 0]);
        let asked = pods.take_to_probe(100);
        assert!(pods.probed(&asked[0], true));
        assert_eq!(used(&pods, &next, "10.1.0.1"), ["next"]);
    }

    #[test]
    fn where_a_queue_proxy_cannot_know_kubernetes_is_waited_for() {
        let wait = r#","waitForReadiness":true"#;
        let mut pods = Pods::default();
        pods.observe(&fed(&[("10.0.0.1", false)], wait));
        assert!(pods.take_to_probe(100).is_empty());
        pods.observe(&fed(&[("10.0.0.1", true)], wait));
        assert_eq!(pods.take_to_probe(100).len(), 1);
    }

    #[test]
    fn healthy_pods_are_shared_among_the_activators_that_are_named() {
        let fed = fed(
            &[("10.0.0.1", true), ("10.0.0.2", true), ("10.0.0.3", true)],
            r#","activators":["10.1.0.2","10.1.0.1"]"#,
        );
        let mut pods = Pods::default();
        pods.observe(&fed);
        all_answer(&mut pods);
        assert_eq!(used(&pods, &fed, "10.1.0.1"), ["10.0.0.1", "10.0.0.3"]);
        assert_eq!(used(&pods, &fed, "10.1.0.2"), ["10.0.0.2"]);
        assert_eq!(used(&pods, &fed, "10.1.0.3").len(), 3, "not named");
    }
}
