//! The status of one Ingress: pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kinglet_api::conditions::{ConditionState, Conditions, IngressCondition};
use kinglet_api::networking::{Ingress, LoadBalancerIngress, LoadBalancerStatus};
use kinglet_decide::route::Conflict;
use kinglet_reconcile::Plan;

use super::GatewayNames;
use super::publish::{PATIENCE, ProgrammedState};

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
        Ok(ProgrammedState::OnItsWay { for_long: false }) => {
            plan.after(PATIENCE);
            return plan;
        }
        Ok(ProgrammedState::OnItsWay { for_long: true }) => {
            let waiting = ConditionState::unknown_because(
                "Uninitialized",
                "Waiting for load balancer to be ready",
            );
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
