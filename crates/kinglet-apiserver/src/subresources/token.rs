//! `token` of a ServiceAccount: signed tokens, bound to Pods and Secrets.

use serde_json::{Value, json};

use super::current;
use crate::auth::signer::AUDIENCE;
use crate::body::{ApiResponse, json as answer_json};
use crate::context::RequestContext;
use crate::decode;
use crate::object::{self, child, fields, number, text};
use crate::status::{Cause, Status};

/// Life of a token in seconds: without a request, and the least and most that a request may ask for.
const TOKEN_SECONDS: i64 = 3600;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

pub(super) async fn token(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let mut request = decode::value(context)?;
    let (_, account) = current(context).await?;
    let Some(signer) = context.server.options.signer.clone() else {
        return Err(Status::not_implemented(
            "this server has no key to sign service-account tokens with",
        ));
    };
    let seconds = token_seconds(context, &request)?;
    let audiences = match object::items(&request, &["spec", "audiences"]) {
        [] => json!([AUDIENCE]),
        given => Value::Array(given.to_vec()),
    };
    let now = context.server.options.clock.now();
    let (namespace, name) = (context.info.namespace.clone(), context.info.name.clone());
    let mut bound = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": object::uid(&account)}});
    bind_token(context, &request["spec"]["boundObjectRef"], &mut bound)?;
    let claims = json!({
        "iss": AUDIENCE, "aud": audiences, "sub": format!("system:serviceaccount:{namespace}:{name}"), "jti": context.server.uuid(),
        "iat": now.as_second(), "nbf": now.as_second(), "exp": now.as_second() + seconds, "kubernetes.io": bound,
    });
    let signed = signer.sign(&claims).map_err(Status::internal)?;
    let end = now
        .checked_add(jiff::SignedDuration::from_secs(seconds))
        .unwrap_or(now);
    let root = fields(&mut request);
    root.insert("kind".to_owned(), "TokenRequest".into());
    root.insert("apiVersion".to_owned(), "authentication.k8s.io/v1".into());
    let spec = child(root, "spec");
    spec.insert("audiences".to_owned(), audiences);
    spec.insert("expirationSeconds".to_owned(), seconds.into());
    spec.entry("boundObjectRef").or_insert(Value::Null);
    root.insert(
        "status".to_owned(),
        json!({"token": signed, "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}),
    );
    let metadata = child(root, "metadata");
    metadata.insert("name".to_owned(), name.into());
    metadata.insert("namespace".to_owned(), namespace.into());
    metadata.insert("uid".to_owned(), context.server.uuid().into());
    metadata.insert("creationTimestamp".to_owned(), context.server.now().into());
    Ok(answer_json(201, &request))
}

/// Validates a token request and returns its seconds.
fn token_seconds(context: &RequestContext<'_>, request: &Value) -> Result<i64, Status> {
    let invalid = |cause, name: &str| {
        Status::invalid("authentication.k8s.io", "TokenRequest", name, &[cause])
    };
    let account = &context.info.name;
    let name = object::name(request);
    if !name.is_empty() && name != account {
        let detail = "must match the service account name if specified";
        let cause = Cause::invalid("metadata.name", &name.into(), detail);
        return Err(invalid(cause, account));
    }
    let seconds = number(request, &["spec", "expirationSeconds"]).unwrap_or(TOKEN_SECONDS);
    let detail = match seconds {
        ..TOKEN_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        TOKEN_SECONDS_MIN..=TOKEN_SECONDS_MAX => return Ok(seconds),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let cause = Cause::invalid("spec.expirationSeconds", &seconds.into(), detail);
    Err(invalid(cause, ""))
}

/// Binds a token to the Pod or Secret it is asked for.
fn bind_token(
    context: &RequestContext<'_>,
    reference: &Value,
    bound: &mut Value,
) -> Result<(), Status> {
    let (kind, name) = (text(reference, &["kind"]), text(reference, &["name"]));
    let (plural, claim) = match kind {
        "" => return Ok(()),
        "Pod" => ("pods", "pod"),
        "Secret" => ("secrets", "secret"),
        other => {
            let version = text(reference, &["apiVersion"]);
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {version}, Kind={other}"
            )));
        }
    };
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    let entry = context
        .server
        .store
        .get(&format!("core/{plural}/{}/{name}", context.info.namespace))
        .ok_or_else(|| Status::not_found("", plural, name))?;
    let found: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    let uid = text(reference, &["uid"]);
    if !uid.is_empty() && uid != object::uid(&found) {
        let detail = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", kind, name, &detail));
    }
    bound[claim] = json!({"name": name, "uid": object::uid(&found)});
    Ok(())
}
