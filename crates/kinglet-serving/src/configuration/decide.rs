//! What to do about one Configuration: pure.

use std::cmp::Reverse;

use kinglet_api::conditions::{ConditionState, Conditions, ConfigurationCondition};
use kinglet_api::serving::{ConfigurationStatus, Revision};
use kinglet_reconcile::Plan;

use super::build;
use super::observe::{ConfigurationObserved, Latest, generation};

const REVISION_FAILED: &str = "RevisionFailed";

pub(super) fn decide(observed: &ConfigurationObserved) -> Plan {
    let configuration = &*observed.configuration;
    let mut plan = Plan::new();
    let created;
    let latest = match &observed.latest {
        Latest::Found(revision) => &**revision,
        Latest::Taken(name) => {
            let words = format!("revisions.serving.knative.dev {name:?} already exists.");
            plan.append(refused(observed, &words));
            return plan;
        }
        Latest::Missing => {
            created = build::revision(configuration, observed.now);
            plan.create(&created);
            plan.normal(
                configuration,
                "Created",
                format!("Created Revision {:?}", created.name()),
            );
            &created
        }
    };

    let mut status = configuration.status.clone();
    latest
        .name()
        .clone_into(&mut status.latest_created_revision_name);
    let mut state = judge(latest, &status);
    if observed.hold.is_zero() && matches!(state, Some(ConditionState::False(_))) {
        tell_failure(observed, latest, state.as_ref(), &mut plan);
    }
    let first = status.latest_ready_revision_name.is_empty();
    if let Some(ready) = latest_ready(observed) {
        let name = ready.name();
        if ready.name() == latest.name() {
            state = Some(ConditionState::True);
            if first {
                plan.normal(
                    configuration,
                    "ConfigurationReady",
                    "Configuration becomes ready",
                );
            }
        }
        if status.latest_ready_revision_name != name {
            plan.normal(
                configuration,
                "LatestReadyUpdate",
                format!("LatestReadyRevisionName updated to {name:?}"),
            );
            name.clone_into(&mut status.latest_ready_revision_name);
        }
    }
    finish(observed, status, state, &mut plan);
    plan
}

/// The status after the API server refused the Revision.
pub(super) fn refused(observed: &ConfigurationObserved, words: &str) -> Plan {
    let mut plan = Plan::new();
    let message = format!("Revision creation failed with message: {words}");
    finish(
        observed,
        observed.configuration.status.clone(),
        Some(ConditionState::false_because(REVISION_FAILED, message)),
        &mut plan,
    );
    plan
}

fn finish(
    observed: &ConfigurationObserved,
    mut status: ConfigurationStatus,
    state: Option<ConditionState>,
    plan: &mut Plan,
) {
    let before = &observed.configuration.status.common.conditions;
    // A failure of a young generation reads as Knative's state before the verdict (see `crate::generation_age`).
    let held = !observed.hold.is_zero() && matches!(state, Some(ConditionState::False(_)));
    let state = if held {
        plan.after(observed.hold);
        Some(ConditionState::unknown())
    } else {
        state
    };
    status.common.conditions = Conditions::new()
        .with_some(ConfigurationCondition::Ready, state)
        .finish(before, observed.now);
    status.common.observed_generation = observed.configuration.generation();
    plan.status(&*observed.configuration, &status);
}

/// What the newest Revision means for the Configuration; `None` leaves what was known.
fn judge(latest: &Revision, status: &ConfigurationStatus) -> Option<ConditionState> {
    let ready = latest.status.common.condition("Ready");
    match ready {
        Some(ready) if ready.is_false() => {
            let message = format!(
                "Revision {:?} failed with message: {}.",
                latest.name(),
                ready.message
            );
            Some(ConditionState::false_because(REVISION_FAILED, message))
        }
        _ if latest.name() == status.latest_ready_revision_name => None,
        // Knative says nothing here; where the Revision has more than a catchword to say, it is passed on.
        Some(ready) if ready.is_unknown() && !ready.message.is_empty() => Some(
            ConditionState::unknown_because(ready.reason.clone(), ready.message.clone()),
        ),
        _ => Some(ConditionState::unknown()),
    }
}

fn tell_failure(
    observed: &ConfigurationObserved,
    latest: &Revision,
    state: Option<&ConditionState>,
    plan: &mut Plan,
) {
    let configuration = &*observed.configuration;
    let before = configuration.status.common.condition("Ready");
    if before.is_some_and(|before| Some(&ConditionState::mirror(Some(before))) == state) {
        return;
    }
    let (reason, which) = if latest.name() == configuration.status.latest_ready_revision_name {
        ("LatestReadyFailed", "ready")
    } else {
        ("LatestCreatedFailed", "created")
    };
    plan.warning(
        configuration,
        reason,
        format!("Latest {which} revision {:?} has failed", latest.name()),
    );
}

/// The newest Revision that works, but none older than the one that was the latest.
fn latest_ready(observed: &ConfigurationObserved) -> Option<&Revision> {
    let configuration = &*observed.configuration;
    let wanted = configuration
        .spec
        .template
        .metadata
        .name
        .as_deref()
        .filter(|name| !name.is_empty());
    let known = &configuration.status.latest_ready_revision_name;
    let floor = observed
        .revisions
        .iter()
        .find(|revision| revision.name() == known)
        .map(|revision| generation(revision));
    let eligible = |revision: &&Revision| {
        let generation = generation(revision);
        let named = Some(revision.name()) == wanted;
        named
            || floor.is_none_or(|floor| (floor..=configuration.generation()).contains(&generation))
    };
    let ready = |revision: &&Revision| revision.status.common.is_ready(revision.generation());
    let revisions = observed.revisions.iter().map(|revision| &**revision);
    revisions
        .filter(eligible)
        .filter(ready)
        .min_by_key(|revision| {
            (
                Some(revision.name()) != wanted,
                Reverse(generation(revision)),
                revision.name().to_owned(),
            )
        })
}
