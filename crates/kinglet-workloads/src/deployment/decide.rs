//! What a Deployment needs next: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kinglet_reconcile::{
    Cascade, EventRecord, Plan, Severity, annotation, name_of, owner_reference, uid_of,
};

use super::conditions::{self, RolloutState};
use super::rollout::{self, Limits, Size};
use super::template::{self, DESIRED, MAX, REVISION, REVISION_HISTORY};

/// What was observed.
pub(super) struct ObservedDeployment {
    pub(super) deployment: Arc<Deployment>,
    /// ReplicaSets that it controls.
    pub(super) owned: Vec<Arc<ReplicaSet>>,
    /// ReplicaSets that match and that nobody controls.
    pub(super) orphans: Vec<Arc<ReplicaSet>>,
    /// For Recreate: Pods of each ReplicaSet (by uid) that have not ended.
    pub(super) pods_left: BTreeMap<String, usize>,
}

/// What to do: a ReplicaSet to create first (its name may be taken), then the rest.
pub(super) struct Decision {
    pub(super) create: Option<ReplicaSet>,
    pub(super) plan: Plan,
}

/// Whether old Pods must be gone before new ones start.
pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// The size in the spec.
pub(super) fn replicas_of(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(0)
}

/// The Event that tells of a scaling.
pub(super) fn scaled(deployment: &Deployment, set: &ReplicaSet, from: i32, to: i32) -> EventRecord {
    let direction = if to > from { "up" } else { "down" };
    let words = format!(
        "Scaled {direction} replica set {} from {from} to {to}",
        name_of(set)
    );
    EventRecord::new(deployment, Severity::Normal, "ScalingReplicaSet", words)
}

/// The plan when the new ReplicaSet could not be created.
pub(super) fn creation_failed(
    observed: &ObservedDeployment,
    new: &ReplicaSet,
    message: &str,
    now: Timestamp,
) -> Plan {
    let deployment = &*observed.deployment;
    let mut plan = Plan::new();
    plan.warning(
        deployment,
        "ReplicaSetCreateError",
        format!(
            "Failed to create new replica set \"{}\": {message}",
            name_of(new)
        ),
    );
    plan.status(
        deployment,
        &conditions::creation_failed(deployment, name_of(new), message, now),
    );
    plan
}

/// Decides the next step.
pub(super) fn decide(observed: &ObservedDeployment, now: Timestamp) -> Decision {
    let deployment = &*observed.deployment;
    let mut plan = Plan::new();
    if deployment.metadata.deletion_timestamp.is_some() {
        return Decision { create: None, plan };
    }
    adopt(observed, &mut plan);
    let limits = Limits::of(deployment);
    let (new, mut old) = sort(observed);
    old.sort_by_key(|set| {
        (
            set.metadata.creation_timestamp.clone().map(|time| time.0),
            name_of(&**set).to_owned(),
        )
    });
    let revision = next_revision(new.as_deref(), &old);
    let sizes = sizes(observed, &limits, new.as_deref(), &old);

    let create = (new.is_none() && !is_paused(deployment)).then(|| {
        let mut set = template::replica_set(deployment);
        annotate(&mut set, &limits, Some(revision));
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(sizes.new);
        }
        set
    });
    if let Some(new) = &new {
        resize(
            deployment,
            new,
            sizes.new,
            &limits,
            Some(revision),
            &mut plan,
        );
    }
    for (set, wanted) in old.iter().zip(&sizes.old) {
        resize(deployment, set, *wanted, &limits, None, &mut plan);
    }
    let rollout = RolloutState {
        deployment,
        limits,
        new: new.as_deref(),
        all: &observed.owned,
        replicas_wanted: sizes.new + sizes.old.iter().sum::<i32>(),
        created: create.as_ref().and_then(|set| set.metadata.name.as_deref()),
        now,
    };
    let (status, again) = conditions::status(&rollout);
    if conditions::complete(&rollout, &status) || is_paused(deployment) {
        clean_up(deployment, &old, &mut plan);
    }
    number(
        deployment,
        new.is_some() || create.is_some(),
        revision,
        &mut plan,
    );
    plan.status(deployment, &status);
    if let Some(again) = again {
        plan.after(again);
    }
    Decision { create, plan }
}

struct Sizes {
    new: i32,
    old: Vec<i32>,
}

/// The size that each ReplicaSet shall have.
fn sizes(
    observed: &ObservedDeployment,
    limits: &Limits,
    new: Option<&ReplicaSet>,
    old: &[Arc<ReplicaSet>],
) -> Sizes {
    let new_size = new.map(size_of);
    let old_sizes: Vec<Size> = old.iter().map(|set| size_of(set)).collect();
    let scaled = old_sizes
        .iter()
        .chain(&new_size)
        .filter(|size| size.wanted > 0)
        .any(|size| {
            size.desired_then
                .is_some_and(|then| then != limits.replicas)
        });
    if scaled || is_paused(&observed.deployment) {
        return scaled_sizes(&observed.deployment, limits, new_size, &old_sizes);
    }
    let new_size = new_size.unwrap_or_default();
    if is_recreate(&observed.deployment) {
        let left = |set: &Arc<ReplicaSet>| {
            observed.pods_left.get(uid_of(&**set)).copied().unwrap_or(0) > 0
        };
        let clear = old_sizes.iter().all(|size| size.wanted == 0) && !old.iter().any(left);
        return Sizes {
            new: if clear {
                limits.replicas
            } else {
                new_size.wanted
            },
            old: vec![0; old.len()],
        };
    }
    let (new, old) = rollout::rolling(limits, new_size, &old_sizes);
    Sizes { new, old }
}

/// The sizes of a Deployment that is paused, or that somebody scaled: no step of a rollout is taken.
fn scaled_sizes(
    deployment: &Deployment,
    limits: &Limits,
    new: Option<Size>,
    old: &[Size],
) -> Sizes {
    let new_size = new.unwrap_or_default();
    let active = old
        .iter()
        .chain(&new)
        .filter(|size| size.wanted > 0)
        .count();
    let as_they_are = || old.iter().map(|size| size.wanted).collect::<Vec<_>>();
    let paused = is_paused(deployment);
    match active {
        0 if paused => Sizes {
            new: if new.is_some() { limits.replicas } else { 0 },
            old: as_they_are(),
        },
        1 if new_size.wanted > 0 => Sizes {
            new: limits.replicas,
            old: as_they_are(),
        },
        1 if new.is_none() && !paused => Sizes {
            new: 0,
            old: replaced(old, limits.replicas),
        },
        1 => Sizes {
            new: new_size.wanted,
            old: replaced(old, limits.replicas),
        },
        _ if new.is_some()
            && new_size.wanted == limits.replicas
            && new_size.available == limits.replicas =>
        {
            Sizes {
                new: limits.replicas,
                old: vec![0; old.len()],
            }
        }
        _ if is_recreate(deployment) => Sizes {
            new: new_size.wanted,
            old: as_they_are(),
        },
        _ => {
            let all: Vec<Size> = std::iter::once(new_size)
                .chain(old.iter().copied())
                .collect();
            let mut out = rollout::proportional(limits, &all);
            let new = out.remove(0);
            Sizes { new, old: out }
        }
    }
}

/// The one active old ReplicaSet gets the new size, the others keep theirs.
fn replaced(old: &[Size], replicas: i32) -> Vec<i32> {
    old.iter()
        .map(|size| {
            if size.wanted > 0 {
                replicas
            } else {
                size.wanted
            }
        })
        .collect()
}

fn size_of(set: &ReplicaSet) -> Size {
    let number = |name| annotation(set, name).and_then(|text| text.parse().ok());
    Size {
        wanted: replicas_of(set),
        available: set
            .status
            .as_ref()
            .and_then(|status| status.available_replicas)
            .unwrap_or(0),
        desired_then: number(DESIRED),
        max_then: number(MAX),
    }
}

fn is_paused(deployment: &Deployment) -> bool {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.paused)
        .unwrap_or(false)
}

/// The ReplicaSet of the present template (the oldest, should there be two), and the others.
fn sort(observed: &ObservedDeployment) -> (Option<Arc<ReplicaSet>>, Vec<Arc<ReplicaSet>>) {
    let age = |set: &&Arc<ReplicaSet>| {
        (
            set.metadata.creation_timestamp.clone().map(|time| time.0),
            name_of(&***set).to_owned(),
        )
    };
    let matching = observed
        .owned
        .iter()
        .filter(|set| template::same(set, &observed.deployment));
    let new = matching.min_by_key(age).cloned();
    let is_new = |set: &Arc<ReplicaSet>| {
        new.as_ref()
            .is_some_and(|new| uid_of(&**new) == uid_of(&**set))
    };
    let old = observed
        .owned
        .iter()
        .filter(|set| !is_new(set))
        .cloned()
        .collect();
    (new, old)
}

fn revision_of(set: &ReplicaSet) -> i64 {
    annotation(set, REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn next_revision(new: Option<&ReplicaSet>, old: &[Arc<ReplicaSet>]) -> i64 {
    let highest = old.iter().map(|set| revision_of(set)).max().unwrap_or(0) + 1;
    new.map_or(highest, |set| revision_of(set).max(highest))
}

fn annotate(set: &mut ReplicaSet, limits: &Limits, revision: Option<i64>) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED.to_owned(), limits.replicas.to_string());
    annotations.insert(
        MAX.to_owned(),
        (limits.replicas + limits.max_surge).to_string(),
    );
    let Some(revision) = revision else { return };
    let before = annotations.insert(REVISION.to_owned(), revision.to_string());
    if let Some(before) = before.filter(|before| *before != revision.to_string()) {
        let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
        *history = if history.is_empty() {
            before
        } else {
            format!("{history},{before}")
        };
    }
}

/// Brings one ReplicaSet to its size; the new one also to what the Deployment hands down.
fn resize(
    deployment: &Deployment,
    observed: &ReplicaSet,
    wanted: i32,
    limits: &Limits,
    revision: Option<i64>,
    plan: &mut Plan,
) {
    let mut set = observed.clone();
    let from = replicas_of(observed);
    if revision.is_some() {
        let annotations = set.metadata.annotations.get_or_insert_default();
        annotations.extend(template::handed_down(deployment));
        if let (Some(spec), Some(of)) = (&mut set.spec, &deployment.spec) {
            spec.min_ready_seconds = of.min_ready_seconds;
        }
    }
    if from != wanted || wanted > 0 || revision.is_some() {
        annotate(&mut set, limits, revision);
    }
    if let Some(spec) = &mut set.spec {
        spec.replicas = Some(wanted);
    }
    plan.update(observed, &set);
    if from != wanted {
        plan.event(scaled(deployment, observed, from, wanted));
    }
}

fn adopt(observed: &ObservedDeployment, plan: &mut Plan) {
    for orphan in &observed.orphans {
        let mut set = (**orphan).clone();
        set.metadata
            .owner_references
            .get_or_insert_default()
            .push(owner_reference(&*observed.deployment));
        plan.update(&**orphan, &set);
    }
}

/// The Deployment carries the number of its present template.
fn number(deployment: &Deployment, has_new: bool, revision: i64, plan: &mut Plan) {
    if !has_new || annotation(deployment, REVISION) == Some(revision.to_string().as_str()) {
        return;
    }
    let mut desired = deployment.clone();
    desired
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(REVISION.to_owned(), revision.to_string());
    plan.update(deployment, &desired);
}

/// Old ReplicaSets that are empty, beyond the history that was asked for.
fn clean_up(deployment: &Deployment, old: &[Arc<ReplicaSet>], plan: &mut Plan) {
    let limit = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit)
        .unwrap_or(10);
    let alive = |set: &&Arc<ReplicaSet>| set.metadata.deletion_timestamp.is_none();
    let mut candidates: Vec<_> = old.iter().filter(alive).collect();
    candidates.sort_by_key(|set| revision_of(set));
    let excess = candidates
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    for set in candidates.into_iter().take(excess) {
        let status = set.status.as_ref();
        let observed =
            status.and_then(|status| status.observed_generation) >= set.metadata.generation;
        if replicas_of(set) == 0 && status.is_none_or(|status| status.replicas == 0) && observed {
            plan.delete(&**set, Cascade::Background);
        }
    }
}

#[cfg(test)]
mod tests;
