//! ClusterRoles that are made of others: `aggregationRule` selects by label, the rules of the selected ones are their rules.
//!
//! It runs where a ClusterRole is stored, so that there is no moment at which a right that was given does not hold.

use kinglet_store::{Durability, Expect};
use serde_json::Value;

use crate::object::{self, items};
use crate::state::ServerState;

const FOLDER: &str = "rbac.authorization.k8s.io/clusterroles/";
/// Aggregates of aggregates: each round carries rules one level up. Kubernetes knows one level of its own (`edit` into `admin`).
const ROUNDS_MAX: usize = 8;

/// Brings all aggregated roles up to date.
pub(crate) fn refresh(server: &ServerState) {
    for _ in 0..ROUNDS_MAX {
        if !round(server) {
            return;
        }
    }
}

/// One pass; did anything change?
fn round(server: &ServerState) -> bool {
    let page = server.store.list(FOLDER, None, 0, None);
    let roles: Vec<(std::sync::Arc<str>, u64, Value)> = page
        .map(|page| page.entries)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(key, entry)| {
            let role = serde_json::from_slice(&entry.value).ok()?;
            Some((key, entry.modified, role))
        })
        .collect();
    let mut changed = false;
    for (key, revision, role) in &roles {
        let Some(rules) = aggregated(role, roles.iter().map(|(_, _, role)| role)) else {
            continue;
        };
        if items(role, &["rules"]) == rules {
            continue;
        }
        let mut role = role.clone();
        object::fields(&mut role).insert("rules".to_owned(), rules.into());
        let template = object::Template::new(&role);
        // Whoever writes in between comes through here himself.
        let written = server.store.put(
            key,
            Expect::Revision(*revision),
            Durability::Trailing,
            |revision| template.stamp(revision),
        );
        changed |= written.is_ok();
    }
    changed
}

/// The rules of an aggregated role; none if it is not one.
fn aggregated<'a>(role: &Value, all: impl Iterator<Item = &'a Value>) -> Option<Vec<Value>> {
    let selectors = items(role, &["aggregationRule", "clusterRoleSelectors"]);
    if selectors.is_empty() {
        return None;
    }
    let mut rules: Vec<Value> = Vec::new();
    for other in all.filter(|other| object::name(other) != object::name(role)) {
        if !selectors
            .iter()
            .any(|selector| object::matches_labels(selector, other))
        {
            continue;
        }
        for rule in items(other, &["rules"]) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Some(rules)
}
