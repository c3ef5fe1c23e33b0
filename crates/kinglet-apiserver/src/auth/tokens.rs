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
    let now = server.options.clock.now().as_second();
    let secret = &claims["kubernetes.io"]["secret"];
    // Only the token of a Secret has no end; it dies with that.
    let ended = match claims["exp"].as_i64() {
        Some(end) => end <= now,
        None => !secret.is_object(),
    };
    if ended || claims["nbf"].as_i64().is_some_and(|begin| begin > now + 60) {
        return None;
    }
    let made_for: Vec<String> = object::items(&claims, &["aud"])
        .iter()
        .filter_map(Value::as_str)
        .filter(|audience| audiences.contains(audience))
        .map(str::to_owned)
        .collect();
    if claims["iss"] != AUDIENCE || made_for.is_empty() {
        return None;
    }
    let bound = &claims["kubernetes.io"];
    let (namespace, name) = (
        text(bound, &["namespace"]),
        text(bound, &["serviceaccount", "name"]),
    );
    // A token dies with its account, and with the pod it is bound to.
    let lives = |key: String, uid: &str| {
        server
            .store
            .get(&key)
            .and_then(|entry| serde_json::from_slice::<Value>(&entry.value).ok())
            .is_some_and(|found| object::uid(&found) == uid)
    };
    if !lives(
        format!("core/serviceaccounts/{namespace}/{name}"),
        text(bound, &["serviceaccount", "uid"]),
    ) {
        return None;
    }
    if secret.is_object()
        && !lives(
            format!("core/secrets/{namespace}/{}", text(secret, &["name"])),
            text(secret, &["uid"]),
        )
    {
        return None;
    }
    let pod = text(bound, &["pod", "name"]);
    if !pod.is_empty()
        && !lives(
            format!("core/pods/{namespace}/{pod}"),
            text(bound, &["pod", "uid"]),
        )
    {
        return None;
    }
    let identity = Arc::new(Identity {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: text(bound, &["serviceaccount", "uid"]).to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            AUTHENTICATED.to_owned(),
        ],
        origin: Origin::Listener,
    });
    Some((identity, made_for))
}

/// Compares without telling by time where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .fold(0, |different, (a, b)| different | (a ^ b))
            == 0
}
