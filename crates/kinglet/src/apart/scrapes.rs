//! The autoscaler's scraper: once a second the ready queue-proxies of each Revision are asked for their statistics, where
//! its Metric says so (spec/serving.md 5.2, spec/cluster.md 3.4).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use k8s_openapi::api::core::v1::Pod;
use kinglet_api::autoscaling::Metric;
use kinglet_dataplane::stats::{QueueProxy, Scraper};
use kinglet_decide::feed::{Report, Source};
use kinglet_process::{Clock, Tasks};
use kinglet_reconcile::{Cache, Caches, key_of};
use kinglet_serving::autoscale::pods;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// Knative's pace.
const EVERY: Duration = Duration::from_secs(1);
/// Revisions asked at once; each of them asks some pods.
const AT_ONCE_MAX: usize = 64;
/// Where a queue-proxy has its statistics.
const STATISTICS_PORT: u16 = 9090;
/// Who reports (Knative's name).
const REPORTER: &str = "service-scraper";

/// Starts scraping.
pub(super) fn start(caches: &Caches, reports: &mpsc::Sender<Report>, tasks: &Tasks) {
    let scrapes = Arc::new(Scrapes {
        metrics: caches.cache(),
        pods: caches.cache(),
        clock: caches.clock().clone(),
        reports: reports.clone(),
        scraper: Scraper::default(),
    });
    tasks.component_cancellable("scraper", async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let metrics = scrapes.metrics.all();
            stream::iter(metrics)
                .for_each_concurrent(AT_ONCE_MAX, |metric| scrapes.scrape(metric))
                .await;
        }
    });
}

struct Scrapes {
    metrics: Cache<Metric>,
    pods: Cache<Pod>,
    clock: Clock,
    reports: mpsc::Sender<Report>,
    scraper: Scraper,
}

impl Scrapes {
    async fn scrape(&self, metric: Arc<Metric>) {
        if metric.spec.scrape_target.is_empty() {
            return;
        }
        let revision = key_of(&*metric);
        let now = self.clock.now();
        let all = pods::of_revision(&self.pods, &revision.namespace, &revision.name);
        let ready: Vec<QueueProxy> = all
            .iter()
            .filter(|pod| pods::takes_requests(pod))
            .filter_map(|pod| queue_proxy(pod, now))
            .collect();
        let stable = Duration::from_nanos(metric.spec.stable_window.unsigned_abs());
        match self.scraper.scrape(&ready, stable).await {
            Ok(None) => {}
            Ok(Some(stat)) => {
                // While the autoscaler is behind, a statistic is dropped: the next one is better.
                let _ = self.reports.try_send(Report::Stat {
                    revision,
                    source: Source::itself(REPORTER),
                    stat,
                });
            }
            Err(error) => {
                tracing::debug!(%revision, %error, "queue-proxies gave no statistics");
            }
        }
    }
}

fn queue_proxy(pod: &Pod, now: jiff::Timestamp) -> Option<QueueProxy> {
    let started = pod.status.as_ref()?.start_time.as_ref()?.0;
    Some(QueueProxy {
        address: SocketAddr::new(pods::address(pod)?, STATISTICS_PORT),
        age: Duration::try_from(now.duration_since(started)).unwrap_or_default(),
    })
}
