//! What to do about one Revision: pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kinglet_api::autoscaling::{PodAutoscaler, Reachability};
use kinglet_api::conditions::{ConditionSet, ConditionState, Conditions, RevisionCondition};
use kinglet_api::duck::{Condition, ConditionStatus};
use kinglet_api::keys;
use kinglet_api::serving::RevisionStatus;
use kinglet_reconcile::{Plan, is_controlled_by, name_of, uid_of};

use super::digests::{Known, Resolved};
use super::observe::RevisionObserved;
use super::pod::PodInputs;
use super::{children, deployment, health};
use crate::autoscale::pods;

const DEPLOYING: &str = "Deploying";
const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
const NEVER_ACHIEVED: &str = "Initial scale was never achieved";
const INITIALIZED: &str = "ScaleTargetInitialized";

pub(super) fn decide(observed: &RevisionObserved) -> Plan {
    let mut plan = Plan::new();
    let mut conditions = RevisionConditions::new(&observed.revision.status.common.conditions);
    let mut status = observed.revision.status.clone();
    let template = &observed.configs.observability.revision_url_template;
    status.log_url = template.replace("${REVISION_UID}", uid_of(&*observed.revision));
    match &observed.images {
        Known::Pending => {
            conditions.resources = Some(ConditionState::unknown_because("ResolvingDigests", ""))
        }
        Known::Failed { message, news } => {
            conditions.container = Some(ConditionState::false_because(
                "ContainerMissing",
                message.clone(),
            ));
            if *news {
                // The resolver tries again by itself.
                plan.fail(false, message.clone());
            }
        }
        Known::Resolved(images) => {
            status.container_statuses.clone_from(&images.containers);
            status
                .init_container_statuses
                .clone_from(&images.init_containers);
            run(observed, images, &mut plan, &mut conditions, &mut status);
        }
    }
    finish(observed, conditions, status, &mut plan);
    plan
}

/// The Deployment was refused: nothing will run until that changes.
pub(super) fn refused(observed: &RevisionObserved, reason: &str) -> Plan {
    let mut plan = Plan::new();
    let mut conditions = RevisionConditions::new(&observed.revision.status.common.conditions);
    let mut status = observed.revision.status.clone();
    if let Known::Resolved(images) = &observed.images {
        status.container_statuses.clone_from(&images.containers);
        status
            .init_container_statuses
            .clone_from(&images.init_containers);
    }
    conditions.resources = Some(ConditionState::false_because("FailedCreate", reason));
    conditions.container = Some(ConditionState::unknown_because(DEPLOYING, ""));
    finish(observed, conditions, status, &mut plan);
    plan
}

/// What was found out; what was not told stays as it was.
struct RevisionConditions<'a> {
    before: &'a [Condition],
    resources: Option<ConditionState>,
    container: Option<ConditionState>,
    active: Option<ConditionState>,
}

impl<'a> RevisionConditions<'a> {
    fn new(before: &'a [Condition]) -> Self {
        Self {
            before,
            resources: None,
            container: None,
            active: None,
        }
    }

    fn status(
        &self,
        conditions: Option<&ConditionState>,
        kind: RevisionCondition,
    ) -> ConditionStatus {
        let known = || {
            self.before
                .iter()
                .find(|condition| condition.kind == kind.name())
                .map(|known| known.status)
        };
        conditions
            .map(ConditionState::status)
            .or_else(known)
            .unwrap_or_default()
    }

    fn resources(&self) -> ConditionStatus {
        self.status(
            self.resources.as_ref(),
            RevisionCondition::ResourcesAvailable,
        )
    }

    fn container(&self) -> ConditionStatus {
        self.status(self.container.as_ref(), RevisionCondition::ContainerHealthy)
    }

    /// Whether either condition is False.
    fn is_bad(&self) -> bool {
        self.resources() == ConditionStatus::False || self.container() == ConditionStatus::False
    }

    /// Why resources are not available, as it was known before.
    fn cause(&self) -> Option<&Condition> {
        self.before.iter().find(|condition| {
            condition.kind == RevisionCondition::ResourcesAvailable.name() && condition.is_false()
        })
    }
}

fn finish(
    observed: &RevisionObserved,
    conditions: RevisionConditions<'_>,
    mut status: RevisionStatus,
    plan: &mut Plan,
) {
    let RevisionConditions {
        before,
        resources,
        container,
        active,
    } = conditions;
    status.common.conditions = Conditions::new()
        .with_some(RevisionCondition::ResourcesAvailable, resources)
        .with_some(RevisionCondition::ContainerHealthy, container)
        .with_some(RevisionCondition::Active, active)
        .finish(before, observed.now);
    status.common.observed_generation = observed.revision.generation();
    let ready = |conditions: &[Condition]| {
        conditions
            .iter()
            .any(|found| found.kind == "Ready" && found.is_true())
    };
    let became_ready = ready(&status.common.conditions) && !ready(before);
    plan.status(&*observed.revision, &status);
    if became_ready {
        plan.normal(
            &*observed.revision,
            "RevisionReady",
            "Revision becomes ready upon all resources being ready",
        );
    }
}

/// Deployment, PodAutoscaler, Image caches.
fn run(
    observed: &RevisionObserved,
    images: &Resolved,
    plan: &mut Plan,
    conditions: &mut RevisionConditions<'_>,
    status: &mut RevisionStatus,
) {
    let revision = &*observed.revision;
    let inputs = PodInputs {
        revision,
        digests: &images.containers,
        configs: &observed.configs,
    };
    let desired = deployment::build(inputs);
    match observed.deployment.as_deref() {
        None => {
            plan.create(&desired);
            conditions.resources = Some(ConditionState::unknown_because(DEPLOYING, ""));
            conditions.container = Some(ConditionState::unknown_because(DEPLOYING, ""));
        }
        Some(present) if !is_controlled_by(present, revision) => {
            not_owned(
                "Deployment",
                name_of(present),
                revision.name(),
                conditions,
                plan,
            );
            return;
        }
        Some(present) => {
            if let Some(next) = deployment::renewed(present, &desired) {
                plan.update(present, &next);
            }
            look_at_pods(observed, present, conditions, plan);
        }
    }
    let reachability = reachability(observed, conditions);
    let desired = children::autoscaler(inputs, observed.autoscaler.as_deref(), reachability);
    match observed.autoscaler.as_deref() {
        Some(present) if !is_controlled_by(present, revision) => {
            not_owned(
                "PodAutoscaler",
                present.name(),
                revision.name(),
                conditions,
                plan,
            );
            return;
        }
        present => {
            plan.ensure(present, &desired);
        }
    }
    for container in images.containers.iter().chain(&images.init_containers) {
        let name = children::image_name(revision.name(), &container.name);
        if !observed.caches.iter().any(|image| image.name() == name) {
            plan.create(&children::image(revision, container));
        }
    }
    listen(observed.autoscaler.as_deref(), conditions, status);
    give_up(observed, conditions);
}

/// A Revision that was scaled to zero before it ever worked has Knative's final reason. What kept it from working stays
/// in the message.
fn give_up(observed: &RevisionObserved, conditions: &mut RevisionConditions<'_>) {
    let asleep = observed
        .deployment
        .as_deref()
        .is_some_and(|found| replicas(found) == 0);
    let over = observed.autoscaler.as_deref().is_some_and(|autoscaler| {
        let ready = autoscaler.status.common.condition("Ready");
        !is_initialized(autoscaler)
            && !autoscaler.status.service_name.is_empty()
            && ready.is_some_and(Condition::is_false)
    });
    let container_failed = conditions.container() == ConditionStatus::False;
    let Some(cause) = conditions
        .cause()
        .filter(|_| asleep && over && !container_failed && conditions.resources.is_none())
    else {
        return;
    };
    let message = if cause.message.starts_with(NEVER_ACHIEVED) {
        cause.message.clone()
    } else if cause.reason == DEADLINE_EXCEEDED {
        NEVER_ACHIEVED.to_owned()
    } else {
        format!("{NEVER_ACHIEVED}: {}", cause.message)
    };
    conditions.resources = Some(ConditionState::false_because(DEADLINE_EXCEEDED, message));
}

fn not_owned(
    kind: &str,
    name: &str,
    revision: &str,
    conditions: &mut RevisionConditions<'_>,
    plan: &mut Plan,
) {
    let message = format!("There is an existing {kind} {name:?} that we do not own.");
    conditions.resources = Some(ConditionState::false_because("NotOwned", message));
    plan.fail(
        true,
        format!("revision: {revision:?} does not own {kind}: {name:?}"),
    );
}

fn look_at_pods(
    observed: &RevisionObserved,
    deployment: &Deployment,
    conditions: &mut RevisionConditions<'_>,
    plan: &mut Plan,
) {
    let initialized = observed.autoscaler.as_deref().is_some_and(is_initialized);
    let wanted = replicas(deployment);
    if wanted == 0 && !initialized && conditions.resources() == ConditionStatus::False {
        // The pods that failed are gone; what they said is still the reason. That time ran out is none beside a
        // container that ended.
        if conditions.container() == ConditionStatus::False {
            conditions.resources = Some(health::of_deployment(deployment));
        }
        return;
    }
    conditions.resources = Some(health::of_deployment(deployment));
    if is_up(observed, deployment) {
        conditions.container = Some(ConditionState::True);
        return;
    }
    if wanted == 0 {
        return;
    }
    let all = || observed.pods.iter().map(|pod| &**pod);
    let found = health::of_pods(all(), observed.configs.deployment.pod_is_always_schedulable);
    let silent = found.container.is_none() && found.resources.is_none();
    if let Some(state) = found.resources {
        conditions.resources = Some(state);
    }
    if let Some(state) = found.container {
        conditions.container = Some(state);
    }
    // While a Revision that worked once wakes up, slowness is no news.
    if silent && !initialized {
        let slow = health::of_slow_pods(all(), observed.probe.as_deref(), observed.now);
        if let Some(state) = slow.container {
            conditions.container = Some(state);
        }
        if let Some(seconds) = slow.again_seconds {
            plan.after(Duration::from_secs(seconds.unsigned_abs()));
        }
    }
}

fn replicas(deployment: &Deployment) -> i32 {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// Whether any pod is ready.
fn is_up(observed: &RevisionObserved, deployment: &Deployment) -> bool {
    let counted = deployment
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or(0)
        > 0;
    counted || observed.pods.iter().any(|pod| pods::takes_requests(pod))
}

/// Whether requests can reach the Revision: one that fails or that no route leads to need not be kept up.
fn reachability(observed: &RevisionObserved, conditions: &RevisionConditions<'_>) -> Reachability {
    let stuck = observed
        .deployment
        .as_deref()
        .is_some_and(|found| replicas(found) > 0 && !is_up(observed, found));
    if conditions.is_bad() && stuck {
        return Reachability::Unreachable;
    }
    match observed.revision.label(keys::ROUTING_STATE) {
        Some("active") => Reachability::Reachable,
        Some("reserve") => Reachability::Unreachable,
        _ => Reachability::Unknown,
    }
}

pub(super) fn is_initialized(autoscaler: &PodAutoscaler) -> bool {
    autoscaler
        .status
        .common
        .condition(INITIALIZED)
        .is_some_and(Condition::is_true)
}

/// What to say about a PodAutoscaler that nobody looks at, because its class is not ours. Another autoscaler on this
/// API server may serve the class; then it writes a status and this is not said.
fn unserved_class(autoscaler: &PodAutoscaler) -> Option<String> {
    let class = autoscaler
        .annotation(keys::AUTOSCALING_CLASS)
        .filter(|class| !crate::autoscale::serves_class(Some(class)))?;
    Some(format!(
        "Nobody serves the autoscaling class {class:?} of PodAutoscaler {:?}; the class served here is {:?}.",
        autoscaler.name(),
        keys::AUTOSCALING_CLASS_KPA,
    ))
}

/// What the autoscaler says.
fn listen(
    autoscaler: Option<&PodAutoscaler>,
    conditions: &mut RevisionConditions<'_>,
    status: &mut RevisionStatus,
) {
    let bad = conditions.is_bad();
    let ready = autoscaler.and_then(|autoscaler| autoscaler.status.common.condition("Ready"));
    let (Some(autoscaler), Some(ready)) = (autoscaler, ready) else {
        let message = autoscaler.and_then(unserved_class).unwrap_or_default();
        let deploying = ConditionState::unknown_because(DEPLOYING, message);
        conditions.active = Some(deploying.clone());
        if !bad {
            conditions.resources = Some(deploying);
        }
        return;
    };
    let known = |scale: Option<i32>| scale.filter(|scale| *scale >= 0);
    status.actual_replicas = known(autoscaler.status.actual_scale);
    status.desired_replicas = known(autoscaler.status.desired_scale);
    let initialized = is_initialized(autoscaler);
    let served = !autoscaler.status.service_name.is_empty();
    if initialized && !bad {
        conditions.resources = Some(ConditionState::True);
        conditions.container = Some(ConditionState::True);
    }
    if conditions.resources() == ConditionStatus::True && !(served && initialized) {
        conditions.resources = Some(ConditionState::unknown_because(DEPLOYING, ""));
    }
    if ready.is_false() && !initialized && !bad && served {
        conditions.resources = Some(ConditionState::false_because(
            DEADLINE_EXCEEDED,
            NEVER_ACHIEVED,
        ));
    }
    conditions.active = Some(match ConditionState::mirror(Some(ready)) {
        ConditionState::TrueBecause(_) => ConditionState::True,
        other => other,
    });
}
