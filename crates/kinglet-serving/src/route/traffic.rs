//! From traffic targets to Revisions: pure.

use std::collections::BTreeMap;

use kinglet_api::conditions::ConditionState;
use kinglet_api::duck::Condition;
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Revision, Route, TrafficTarget};

use super::observe::Referenced;

const REVISION_MISSING: &str = "RevisionMissing";

/// One target, its Revision known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RevisionTarget {
    pub(super) tag: String,
    pub(super) revision: String,
    /// The Configuration whose latest ready Revision this is; empty for a fixed one.
    pub(super) configuration: String,
    /// As in the spec.
    pub(super) latest_revision: Option<bool>,
    /// As in the spec.
    pub(super) percent: Option<i64>,
}

/// Where the traffic goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// In the order of the spec.
    pub(super) targets: Vec<RevisionTarget>,
    /// By tag; the empty one is the Route itself. Each Revision once, percents together.
    pub(super) groups: BTreeMap<String, Vec<RevisionTarget>>,
}

/// Every target is looked at. An outright failure speaks before one that is merely not there yet; the last of them.
pub(super) fn resolve(route: &Route, referenced: &Referenced) -> Result<Traffic, ConditionState> {
    let mut targets = Vec::new();
    let mut trouble: Option<ConditionState> = None;
    for target in &route.spec.traffic {
        match one(route, target, referenced) {
            Ok(resolved) => targets.push(resolved),
            Err(state @ ConditionState::False(_)) => trouble = Some(state),
            Err(state) => {
                trouble.get_or_insert(state);
            }
        }
    }
    match trouble {
        Some(state) => Err(state),
        None => Ok(grouped(targets)),
    }
}

fn one(
    route: &Route,
    target: &TrafficTarget,
    referenced: &Referenced,
) -> Result<RevisionTarget, ConditionState> {
    let revision = if target.revision_name.is_empty() {
        latest(&target.configuration_name, referenced)?
    } else {
        fixed(route, &target.revision_name, referenced)?
    };
    Ok(RevisionTarget {
        tag: target.tag.clone(),
        revision: revision.name().to_owned(),
        configuration: target.configuration_name.clone(),
        latest_revision: target
            .latest_revision
            .or(Some(target.revision_name.is_empty())),
        percent: target.percent,
    })
}

fn missing(kind: &str, name: &str) -> ConditionState {
    ConditionState::false_because(
        format!("{kind}Missing"),
        format!("{kind} {name:?} referenced in traffic not found."),
    )
}

fn fixed<'r>(
    route: &Route,
    name: &str,
    referenced: &'r Referenced,
) -> Result<&'r Revision, ConditionState> {
    let revision = referenced
        .revisions
        .get(name)
        .ok_or_else(|| missing("Revision", name))?;
    if let Some(service) = route.label(keys::SERVICE) {
        match revision.label(keys::SERVICE) {
            Some(other) if other == service => {}
            Some(other) => {
                let message = format!(
                    "Revision {name:?} belongs to Service {other:?}, not Service {service:?}."
                );
                return Err(ConditionState::false_because("RevisionNotOwned", message));
            }
            None => {
                let message = format!("Revision {name:?} does not belong to Service {service:?}.");
                return Err(ConditionState::false_because("RevisionNotOwned", message));
            }
        }
    }
    ready(revision)?;
    if let Some(configuration) = revision.label(keys::CONFIGURATION) {
        referenced
            .configurations
            .get(configuration)
            .ok_or_else(|| missing("Configuration", configuration))?;
    }
    Ok(revision)
}

fn latest<'r>(name: &str, referenced: &'r Referenced) -> Result<&'r Revision, ConditionState> {
    let configuration = referenced
        .configurations
        .get(name)
        .ok_or_else(|| missing("Configuration", name))?;
    let latest = &configuration.status.latest_ready_revision_name;
    if latest.is_empty() {
        return Err(without_revision(configuration));
    }
    let revision = referenced
        .revisions
        .get(latest)
        .ok_or_else(|| missing("Revision", latest))?;
    ready(revision)?;
    Ok(revision)
}

fn without_revision(configuration: &Configuration) -> ConditionState {
    let (name, ready) = (
        configuration.name(),
        configuration.status.common.condition("Ready"),
    );
    if ready.is_some_and(Condition::is_false) {
        let message = format!("Configuration {name:?} does not have any ready Revision");
        ConditionState::false_because(REVISION_MISSING, because(&message, ready))
    } else {
        let message = format!("Configuration {name:?} is waiting for a Revision to become ready");
        ConditionState::unknown_because(REVISION_MISSING, because(&message, ready))
    }
}

fn ready(revision: &Revision) -> Result<(), ConditionState> {
    let (name, ready) = (revision.name(), revision.status.common.condition("Ready"));
    match ready {
        Some(condition) if condition.is_true() => Ok(()),
        Some(condition) if condition.is_false() => {
            let message = format!("Revision {name:?} failed to become ready");
            Err(ConditionState::false_because(
                REVISION_MISSING,
                because(&message, ready),
            ))
        }
        _ => Err(ConditionState::unknown_because(
            REVISION_MISSING,
            because(&format!("Revision {name:?} is not yet ready"), ready),
        )),
    }
}

/// Knative's sentence, and behind it what the object below says, which Knative leaves the user to look up.
fn because(sentence: &str, below: Option<&Condition>) -> String {
    match below
        .map(|condition| condition.message.trim())
        .filter(|message| !message.is_empty())
    {
        Some(cause) => format!("{sentence}: {cause}"),
        None => format!("{sentence}."),
    }
}

fn grouped(targets: Vec<RevisionTarget>) -> Traffic {
    let mut groups: BTreeMap<String, Vec<RevisionTarget>> = BTreeMap::new();
    for target in &targets {
        let own = (!target.tag.is_empty()).then_some(target.tag.as_str());
        for group in [Some(""), own].into_iter().flatten() {
            let members = groups.entry(group.to_owned()).or_default();
            match members
                .iter_mut()
                .find(|member| member.revision == target.revision)
            {
                Some(member) => {
                    member.percent = Some(member.percent.unwrap_or(0) + target.percent.unwrap_or(0))
                }
                None => members.push(target.clone()),
            }
        }
    }
    for members in groups.values_mut() {
        // A tag always serves, even with no share of the whole.
        if let [only] = members.as_mut_slice() {
            only.percent = Some(100);
        }
    }
    Traffic { targets, groups }
}
