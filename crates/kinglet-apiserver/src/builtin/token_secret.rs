//! Secrets of type `kubernetes.io/service-account-token`: the token, the CA and the namespace are put in as the Secret is made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::auth::signer::AUDIENCE;
use crate::context::RequestContext;
use crate::object::{self, at, child, fields, meta, text};
use crate::status::{Cause, Status};

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// Completes such a Secret; its name is known by now.
pub(crate) fn complete(context: &RequestContext<'_>, secret: &mut Value) -> Result<(), Status> {
    if text(secret, &["type"]) != TYPE {
        return Ok(());
    }
    let path = format!("metadata.annotations[{NAME}]");
    let invalid = |cause: Cause| {
        Err(Status::invalid(
            "",
            "Secret",
            object::name(secret),
            &[cause],
        ))
    };
    let account = text(secret, &["metadata", "annotations", NAME]).to_owned();
    if account.is_empty() {
        return invalid(Cause::required(path, ""));
    }
    let namespace = &context.info.namespace;
    let Some(found) = stored(
        context,
        &format!("core/serviceaccounts/{namespace}/{account}"),
    ) else {
        return invalid(Cause::not_found(path, &account.into()));
    };
    let Some(signer) = context.server.options.signer.clone() else {
        return Err(Status::not_implemented(
            "this server has no key to sign service-account tokens with",
        ));
    };
    let uid = object::uid(&found).to_owned();
    let claims = json!({
        "iss": AUDIENCE, "aud": [AUDIENCE], "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "iat": context.server.options.clock.now().as_second(),
        "kubernetes.io": {
            "namespace": namespace, "serviceaccount": {"name": account, "uid": uid},
            "secret": {"name": object::name(secret), "uid": object::uid(secret)},
        },
    });
    let token = signer.sign(&claims).map_err(Status::internal)?;
    // Each namespace has the CA once its controller has seen it.
    let authority = [namespace.as_str(), "default", "kube-system"]
        .iter()
        .find_map(|namespace| {
            let map = stored(
                context,
                &format!("core/configmaps/{namespace}/kube-root-ca.crt"),
            )?;
            Some(at(&map, &["data", "ca.crt"])?.as_str()?.to_owned())
        });
    let metadata = meta(secret);
    child(metadata, "annotations").insert(UID.to_owned(), uid.clone().into());
    // It goes with its account.
    metadata.insert(
        "ownerReferences".to_owned(),
        json!([{"apiVersion": "v1", "kind": "ServiceAccount", "name": account, "uid": uid}]),
    );
    let data = child(fields(secret), "data");
    for (key, value) in [
        ("token", Some(token)),
        ("namespace", Some(namespace.clone())),
        ("ca.crt", authority),
    ] {
        if let Some(value) = value {
            data.insert(key.to_owned(), STANDARD.encode(value).into());
        }
    }
    Ok(())
}

fn stored(context: &RequestContext<'_>, key: &str) -> Option<Value> {
    let entry = context.server.store.get(key)?;
    serde_json::from_slice(&entry.value).ok()
}
