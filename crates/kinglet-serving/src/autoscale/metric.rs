//! Metric: what is measured for a PodAutoscaler.
//!
//! The windows live in the decider's set, which the PodAutoscaler reconciler feeds with the same settings;
//! the gateway reports all traffic, so collecting cannot fail and the status says so.

use kinglet_api::autoscaling::{Metric, MetricStatus};
use kinglet_api::conditions::{ConditionState, Conditions, MetricCondition};
use kinglet_reconcile::{Context, Controller, Plan};

/// Starts the controller.
pub fn start(context: &Context) {
    Controller::<Metric>::new("metric-controller").run(context, |context, key| async move {
        let Some(metric) = context.cache::<Metric>().find(&key) else {
            return Ok(Default::default());
        };
        let now = context.now();
        let mut plan = Plan::new();
        plan.status(&*metric, &decide(&metric, now));
        context.apply(plan).await
    });
}

fn decide(metric: &Metric, now: jiff::Timestamp) -> MetricStatus {
    let mut status = metric.status.clone();
    status.common.observed_generation = metric.generation();
    status.common.conditions = Conditions::new()
        .with(MetricCondition::Ready, ConditionState::True)
        .finish(&metric.status.common.conditions, now);
    status
}
