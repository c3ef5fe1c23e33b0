//! Whom a bearer token stands for: known ones and those signed for service accounts.

use std::sync::Arc;

use serde_json::Value;

use super::signer::AUDIENCE;
use crate::identity::{AUTHENTICATED, Identity, Origin};
use crate::object::{self, text};
use crate::state::ServerState;

/// Whom a bearer token stands for.
pub(crate) fn authenticate(server: &ServerState, token: &str) -> Option<Arc<Identity>> {
    authenticate_for(server, token, &[AUDIENCE]).map(|(identity, _)| identity)
}

/// Whom a bearer token stands for before one of these audiences, and which of them it was made for.
pub(crate) fn authenticate_for(
    server: &ServerState,
    token: &str,
    audiences: &[&str],
) -> Option<(Arc<Identity>, Vec<String>)> {
    if token.is_empty() {
        return None;
    }
    let known = server
        .options
        .tokens
        .iter()
        .find(|known| same(known.token.as_bytes(), token.as_bytes()));
    if let Some(known) = known {
        let ours = audiences.contains(&AUDIENCE);
        return ours.then(|| (Arc::new(known.identity.clone()), vec![AUDIENCE.to_owned()]));
    }
    let claims = server.options.signer.as_ref()?.verify(token)?;
    let made_for: Vec<String> = object::items(&claims, &["aud"])
        .iter()
        .filter_map(Value::as_str)
        .filter(|audience| audiences.contains(audience))
        .map(str::to_owned)
        .collect();
    let now = server.options.clock.now().as_second();
    if claims["iss"] != AUDIENCE
        || made_for.is_empty()
        || !is_valid_at(&claims, now)
        || !is_bound_to_living(server, &claims["kubernetes.io"])
    {
        return None;
    }
    Some((Arc::new(account(&claims["kubernetes.io"])), made_for))
}

/// Is it time for this token?
fn is_valid_at(claims: &Value, now: i64) -> bool {
    let lasts = match claims["exp"].as_i64() {
        Some(end) => end > now,
        // Only the token of a Secret has no end; it dies with that.
        None => claims["kubernetes.io"]["secret"].is_object(),
    };
    lasts && claims["nbf"].as_i64().is_none_or(|begin| begin <= now + 60)
}

/// A token dies with its account, and with the Pod or Secret it is bound to.
fn is_bound_to_living(server: &ServerState, bound: &Value) -> bool {
    let namespace = text(bound, &["namespace"]);
    let lives = |plural: &str, reference: &Value| {
        let key = format!("core/{plural}/{namespace}/{}", text(reference, &["name"]));
        server
            .store
            .get(&key)
            .and_then(|entry| serde_json::from_slice::<Value>(&entry.value).ok())
            .is_some_and(|found| object::uid(&found) == text(reference, &["uid"]))
    };
    lives("serviceaccounts", &bound["serviceaccount"])
        && ["secret", "pod"].iter().all(|kind| {
            let reference = &bound[*kind];
            reference.is_null() || lives(&format!("{kind}s"), reference)
        })
}

fn account(bound: &Value) -> Identity {
    let (namespace, name) = (
        text(bound, &["namespace"]),
        text(bound, &["serviceaccount", "name"]),
    );
    Identity {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: text(bound, &["serviceaccount", "uid"]).to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            AUTHENTICATED.to_owned(),
        ],
        origin: Origin::Listener,
    }
}

/// Compares without telling by time where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .fold(0, |different, (a, b)| different | (a ^ b))
            == 0
}
