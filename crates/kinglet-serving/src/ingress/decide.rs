//! The status of one Ingress: pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use kinglet_api::conditions::{ConditionState, Conditions, IngressCondition};
use kinglet_api::duck::ConditionStatus;
use kinglet_api::networking::{Ingress, LoadBalancerIngress, LoadBalancerStatus};
use kinglet_decide::route::Conflict;
use kinglet_reconcile::Plan;

use super::GatewayNames;
use super::publish::{PATIENCE, ProgrammedState};

/// How often a message that names gateways is made anew.
const STALLED_RETRY: Duration = Duration::from_secs(10);
/// So many gateways are named in a message.
const GATEWAYS_NAMED_MAX: usize = 3;

/// What is wrong with certificates speaks for an Ingress whose routes are fine.
pub(super) fn with_faults(
    outcome: Result<ProgrammedState, String>,
    faults: &[String],
) -> Result<ProgrammedState, String> {
    match outcome {
        Ok(state) if faults.is_empty() => Ok(state),
        Ok(ProgrammedState::Rejected(conflicts)) => Ok(ProgrammedState::Rejected(conflicts)),
        Ok(_) => Err(faults.join("; ")),
        Err(words) => Err(words),
    }
}

pub(super) fn decide(
    ingress: &Ingress,
    outcome: &Result<ProgrammedState, String>,
    names: &GatewayNames,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::new();
    let (network, balancer) = match outcome {
        Err(words) => {
            plan.fail(true, words.clone());
            let state = ConditionState::unknown_because("ReconcileIngressFailed", words.clone());
            (state.clone(), state)
        }
        Ok(ProgrammedState::InForce) => (ConditionState::True, ConditionState::True),
        // The answer comes within a millisecond as a rule and wakes us; until then the old status is right.
        Ok(ProgrammedState::OnItsWay) => {
            plan.after(PATIENCE);
            return plan;
        }
        Ok(ProgrammedState::Stalled { gateways }) => {
            // Wakes of its own when it is in force; what it waits for is looked at again meanwhile.
            plan.after(STALLED_RETRY);
            let waiting = ConditionState::unknown_because("Uninitialized", stall(gateways));
            (ConditionState::True, waiting)
        }
        Ok(ProgrammedState::Rejected(conflicts)) => (
            ConditionState::True,
            ConditionState::false_because(
                "DomainConflict",
                format!("Ingress rejected: {}", losses(conflicts)),
            ),
        ),
    };
    let mut status = ingress.status.clone();
    status.common.conditions = Conditions::new()
        .with(IngressCondition::NetworkConfigured, network)
        .with(IngressCondition::LoadBalancerReady, balancer)
        .finish(&ingress.status.common.conditions, now);
    status.common.observed_generation = ingress.generation();
    if matches!(outcome, Ok(ProgrammedState::InForce)) {
        status.public_load_balancer = Some(entrance(&names.public));
        status.private_load_balancer = Some(entrance(&names.private));
    }
    plan.status(ingress, &status);
    plan
}

fn stall(gateways: &[String]) -> String {
    let waiting = "Waiting for load balancer to be ready";
    match gateways {
        [] => format!("{waiting}: there is no gateway"),
        [one] => format!("{waiting}: gateway {one} does not serve it yet"),
        [first @ .., last] if first.len() < GATEWAYS_NAMED_MAX => {
            let first = first.join(", ");
            format!("{waiting}: gateways {first} and {last} do not serve it yet")
        }
        all => {
            let (first, more) = all.split_at(GATEWAYS_NAMED_MAX);
            let first = first.join(", ");
            format!(
                "{waiting}: gateways {first} and {} more do not serve it yet",
                more.len()
            )
        }
    }
}

fn entrance(domain: &str) -> LoadBalancerStatus {
    let ingress = LoadBalancerIngress {
        domain_internal: domain.to_owned(),
        ..LoadBalancerIngress::default()
    };
    LoadBalancerStatus {
        ingress: vec![ingress],
    }
}

fn losses(conflicts: &[Conflict]) -> String {
    let each: BTreeSet<String> = conflicts
        .iter()
        .map(|conflict| {
            format!(
                "host {} belongs to Ingress {}",
                conflict.host, conflict.owner
            )
        })
        .collect();
    each.into_iter().collect::<Vec<_>>().join(", ")
}

/// Whether the status says that gateways serve this very spec.
pub(super) fn is_ready(ingress: &Ingress) -> bool {
    let common = &ingress.status.common;
    let ready = common
        .conditions
        .iter()
        .any(|condition| condition.kind == "Ready" && condition.status == ConditionStatus::True);
    ready && common.observed_generation == ingress.generation()
}
