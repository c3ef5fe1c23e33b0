//! What to do about one PodAutoscaler: pure.

use std::time::Duration;

use kinglet_api::autoscaling::{MetricSpec, PodAutoscaler, PodAutoscalerStatus, Reachability};
use kinglet_api::conditions::{ConditionState, Conditions, PodAutoscalerCondition};
use kinglet_api::duck::{Condition, ConditionStatus};
use kinglet_decide::scale::activity::{self, ActiveCondition, ObservedActivity, PreviousActive};
use kinglet_decide::scale::bounds::{self, Activity, ObservedScale, ScaleDecision};
use kinglet_decide::scale::path::{self, PathMode};
use kinglet_reconcile::{Plan, is_controlled_by};

use super::children;
use super::observe::PodAutoscalerObserved;

const ACTIVE: &str = "Active";
const INITIALIZED: &str = "ScaleTargetInitialized";
const BUFFERED: &str = "ActivatorEndpointsPopulated";

/// Whether the ServerlessService is ready, and what it says.
enum Reached {
    Ready,
    NotReady(String),
    NotOwned(&'static str),
}

pub(super) fn decide(observed: &PodAutoscalerObserved) -> Plan {
    let owner = &*observed.autoscaler;
    let mut plan = Plan::new();
    if let Some(kind) = foreign(observed) {
        let name = owner.name();
        let message = format!("there is an existing {kind} {name:?} that we do not own");
        plan.status(owner, &status(observed, None, Reached::NotOwned(kind)));
        // Nothing changes until somebody removes the foreign object, which wakes us only if we look again.
        plan.fail(true, message);
        return plan;
    }
    let Some(desired_scale) = observed.desired_scale else {
        let desired = children::service(
            owner,
            observed.service.as_deref(),
            PathMode::Proxy,
            path::FEWEST_ACTIVATORS,
        );
        plan.ensure(observed.service.as_deref(), &desired);
        plan.status(
            owner,
            &status(
                observed,
                None,
                Reached::NotReady("No Private Service Name".to_owned()),
            ),
        );
        return plan;
    };

    let order = bounds::bound(&facts(observed, desired_scale.desired));
    scale(observed, &order, &mut plan);
    if let Some(wait) = order.again {
        plan.after(wait);
    }

    let private = observed
        .service
        .as_ref()
        .map_or("", |service| &service.status.private_service_name);
    let metric = MetricSpec {
        stable_window: nanoseconds(observed.settings.stable_window),
        panic_window: nanoseconds(observed.settings.panic_window),
        scrape_target: if observed.settings.always_buffered() {
            String::new()
        } else {
            private.to_owned()
        },
    };
    plan.ensure(
        observed.metric.as_deref(),
        &children::metric(owner, observed.metric.as_deref(), metric),
    );

    let mode = path::mode(order.want, desired_scale.excess_burst_capacity);
    let reached = ensure_service(observed, mode, &mut plan);
    plan.status(owner, &status(observed, order.want, reached));
    plan
}

/// Writes the ServerlessService.
fn ensure_service(observed: &PodAutoscalerObserved, mode: PathMode, plan: &mut Plan) -> Reached {
    let settings = &observed.settings;
    let activators = path::activators(
        observed.pods.ready,
        settings.policy.total,
        settings.policy.target_burst_capacity,
        settings.activator_capacity,
    );
    let desired = children::service(
        &observed.autoscaler,
        observed.service.as_deref(),
        mode,
        activators,
    );
    plan.ensure(observed.service.as_deref(), &desired);
    match observed.service.as_deref() {
        // The one just changed has not been looked at by its own controller yet.
        Some(service)
            if service.spec == desired.spec
                && service.status.common.is_ready(service.generation()) =>
        {
            Reached::Ready
        }
        Some(service) => Reached::NotReady(
            service
                .status
                .common
                .condition("Ready")
                .map(|top| top.message.clone())
                .unwrap_or_default(),
        ),
        None => Reached::NotReady(String::new()),
    }
}

/// The kind of a child that belongs to somebody else.
fn foreign(observed: &PodAutoscalerObserved) -> Option<&'static str> {
    let owner = &*observed.autoscaler;
    if observed
        .service
        .as_ref()
        .is_some_and(|service| !is_controlled_by(&**service, owner))
    {
        return Some("ServerlessService");
    }
    observed
        .metric
        .as_ref()
        .is_some_and(|metric| !is_controlled_by(&**metric, owner))
        .then_some("Metric")
}

/// Scales the Deployment that was seen.
fn scale(observed: &PodAutoscalerObserved, order: &ScaleDecision, plan: &mut Plan) {
    let Some(want) = order.want.filter(|_| order.apply) else {
        return;
    };
    let Some(deployment) = observed.deployment.as_deref() else {
        let target = &observed.autoscaler.spec.scale_target_ref.name;
        plan.fail(
            true,
            format!("there is no Deployment {target:?} to scale to {want}"),
        );
        return;
    };
    let want = i32::try_from(want).unwrap_or(i32::MAX);
    let have = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let have = have.unwrap_or(1);
    if have != want {
        plan.scale(deployment, have, want);
    }
}

fn facts(observed: &PodAutoscalerObserved, desired_scale: Option<u32>) -> ObservedScale {
    let settings = &observed.settings;
    let owner = &*observed.autoscaler;
    let buffered = observed
        .service
        .as_ref()
        .and_then(|service| service.status.common.condition(BUFFERED));
    ObservedScale {
        desired_scale,
        min: settings.min_scale,
        max: settings.max_scale,
        initial_scale: settings.policy.initial_scale,
        initialized: owner
            .status
            .common
            .condition(INITIALIZED)
            .is_some_and(Condition::is_true),
        unreachable: owner.spec.reachability == Reachability::Unreachable,
        scale_to_zero_enabled: settings.scale_to_zero,
        activity: activity(observed),
        stable_window: settings.stable_window,
        grace: settings.grace,
        retention: settings.retention,
        progress_deadline: settings.progress_deadline,
        always_buffered: settings.always_buffered(),
        buffer: observed.buffer,
        buffered_for: buffered
            .filter(|condition| condition.is_true())
            .map(|condition| held(observed, condition)),
    }
}

fn activity(observed: &PodAutoscalerObserved) -> Activity {
    let condition = observed.autoscaler.status.common.condition(ACTIVE);
    let held = condition.map_or(Duration::ZERO, |condition| held(observed, condition));
    match was(&observed.autoscaler) {
        PreviousActive::Activating => Activity::Activating(held),
        PreviousActive::Active => Activity::Active(held),
        PreviousActive::Inactive => Activity::Inactive(held),
    }
}

fn was(owner: &PodAutoscaler) -> PreviousActive {
    match owner
        .status
        .common
        .condition(ACTIVE)
        .map(|condition| condition.status)
    {
        None | Some(ConditionStatus::Unknown) => PreviousActive::Activating,
        Some(ConditionStatus::True) => PreviousActive::Active,
        Some(ConditionStatus::False) => PreviousActive::Inactive,
    }
}

/// How long a condition has said what it says.
fn held(observed: &PodAutoscalerObserved, condition: &Condition) -> Duration {
    let since = condition
        .last_transition_time
        .as_ref()
        .map_or(observed.now, |time| time.0);
    Duration::try_from(observed.now.duration_since(since)).unwrap_or(Duration::ZERO)
}

fn status(
    observed: &PodAutoscalerObserved,
    want: Option<u32>,
    reached: Reached,
) -> PodAutoscalerStatus {
    let owner = &*observed.autoscaler;
    let mut status = owner.status.clone();
    // Before the private Service exists its names are not known; once known they stay.
    if let Some(service) = observed
        .service
        .as_deref()
        .filter(|_| observed.desired_scale.is_some())
    {
        status
            .metrics_service_name
            .clone_from(&service.status.private_service_name);
        status.service_name.clone_from(&service.status.service_name);
    }
    let (says, initialized) = activity::judge(&ObservedActivity {
        want,
        ready: observed.pods.ready,
        min: bounds::minimum(
            observed.settings.min_scale,
            owner.spec.reachability == Reachability::Unreachable,
        ),
        initial_scale: observed.settings.policy.initial_scale,
        initialized: status
            .common
            .condition(INITIALIZED)
            .is_some_and(Condition::is_true),
        has_service: !status.service_name.is_empty(),
        was: was(owner),
    });
    let active = active_condition(observed, &reached, says);
    let reached = match reached {
        Reached::Ready => ConditionState::True,
        Reached::NotReady(message) => ConditionState::unknown_because("NotReady", message),
        Reached::NotOwned(_) => ConditionState::unknown_because("NotReady", ""),
    };
    status.common.conditions = Conditions::new()
        .with(PodAutoscalerCondition::SKSReady, reached)
        .with_some(
            PodAutoscalerCondition::ScaleTargetInitialized,
            initialized.then_some(ConditionState::True),
        )
        .with(PodAutoscalerCondition::Active, active)
        .finish(&owner.status.common.conditions, observed.now);
    keep_activation_clock(
        &mut status.common.conditions,
        &owner.status.common.conditions,
    );
    status.common.observed_generation = owner.generation();
    status.actual_scale = Some(i32::try_from(observed.pods.ready).unwrap_or(i32::MAX));
    status.desired_scale = match want {
        Some(want) => Some(i32::try_from(want).unwrap_or(i32::MAX)),
        // An unknown desired scale never hides a known one.
        None => status.desired_scale.or(Some(-1)),
    };
    status
}

fn active_condition(
    observed: &PodAutoscalerObserved,
    reached: &Reached,
    says: ActiveCondition,
) -> ConditionState {
    match (reached, says) {
        (Reached::NotOwned(kind), _) => ConditionState::false_because(
            "NotOwned",
            format!(
                "There is an existing {kind} {:?} that we do not own.",
                observed.autoscaler.name()
            ),
        ),
        (_, ActiveCondition::Active) => ConditionState::True,
        // Knative stops here; what keeps the pods from coming is what one wants to read.
        (_, ActiveCondition::Queued) => match &observed.trouble {
            Some(trouble) => ConditionState::unknown_because(
                says.reason(),
                format!("{} {trouble}", says.message()),
            ),
            None => ConditionState::unknown_because(says.reason(), says.message()),
        },
        (_, ActiveCondition::NoTraffic | ActiveCondition::TimedOut) => {
            ConditionState::false_because(says.reason(), says.message())
        }
    }
}

/// The deadline of an activation counts from its begin: a new message about it is no new begin.
fn keep_activation_clock(conditions: &mut [Condition], before: &[Condition]) {
    let activating = |condition: &&Condition| condition.kind == ACTIVE && condition.is_unknown();
    let Some(began) = before
        .iter()
        .find(activating)
        .and_then(|was| was.last_transition_time.clone())
    else {
        return;
    };
    if let Some(active) = conditions
        .iter_mut()
        .find(|condition| activating(&&**condition))
    {
        active.last_transition_time = Some(began);
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
