//! Kinds that are questions: reviews of tokens and rights.

use serde_json::{Value, json};

use crate::auth::signer::AUDIENCE;
use crate::auth::{rights, tokens};
use crate::body::{ApiResponse, json as answer};
use crate::context::RequestContext;
use crate::decode;
use crate::identity::Identity;
use crate::kinds::Builtin;
use crate::object::{self, text};
use crate::path::RequestInfo;
use crate::status::{Cause, Status};

pub(crate) fn create(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let mut object = decode::value(context)?;
    decode::check_kind(context, &mut object)?;
    validate(context, &object)?;
    let status = match context.kind.builtin {
        Some(Builtin::TokenReview) => token(context, &object),
        Some(Builtin::SelfSubjectReview) => json!({"userInfo": user_info(context.user)}),
        Some(Builtin::SelfSubjectRulesReview) => rights::rules(
            context.server,
            context.user,
            text(&object, &["spec", "namespace"]),
        ),
        Some(Builtin::SubjectAccessReview | Builtin::LocalSubjectAccessReview) => {
            let groups = object::items(&object, &["spec", "groups"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            let mut subject = Identity::remote(text(&object, &["spec", "user"]), Vec::new());
            subject.groups = groups;
            access(context, &subject, &object)
        }
        _ => access(context, context.user, &object),
    };
    object::fields(&mut object).insert("status".to_owned(), status);
    object::meta(&mut object);
    Ok(answer(201, &object))
}

/// What an access review must say.
fn validate(context: &RequestContext<'_>, object: &Value) -> Result<(), Status> {
    let spec = &object["spec"];
    if context.kind.is(Builtin::TokenReview) && text(spec, &["token"]).is_empty() {
        return Err(Status::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    if context.kind.is(Builtin::SelfSubjectRulesReview) && text(spec, &["namespace"]).is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let mut causes = Vec::new();
    let is_access = matches!(
        context.kind.builtin,
        Some(
            Builtin::SubjectAccessReview
                | Builtin::LocalSubjectAccessReview
                | Builtin::SelfSubjectAccessReview
        )
    );
    if is_access
        && spec["resourceAttributes"].is_object() == spec["nonResourceAttributes"].is_object()
    {
        let detail = if spec["resourceAttributes"].is_object() {
            "cannot be specified in combination with resourceAttributes"
        } else {
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        };
        causes.push(Cause::invalid(
            "spec.resourceAttributes",
            &Value::Null,
            detail,
        ));
    }
    if is_access
        && !context.kind.is(Builtin::SelfSubjectAccessReview)
        && text(spec, &["user"]).is_empty()
        && object::items(spec, &["groups"]).is_empty()
    {
        causes.push(Cause::invalid(
            "spec.user",
            &"".into(),
            "at least one of user or group must be specified",
        ));
    }
    if context.kind.is(Builtin::LocalSubjectAccessReview)
        && text(spec, &["resourceAttributes", "namespace"]) != context.info.namespace
    {
        causes.push(Cause::invalid(
            "spec.resourceAttributes.namespace",
            &spec["resourceAttributes"]["namespace"],
            "must match metadata.namespace",
        ));
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(
        &context.kind.group,
        &context.kind.kind,
        "",
        &causes,
    ))
}

fn user_info(user: &Identity) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.clone().into();
    }
    info
}

fn token(context: &RequestContext<'_>, object: &Value) -> Value {
    let token = text(object, &["spec", "token"]);
    let wanted: Vec<&str> = object::items(object, &["spec", "audiences"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let audiences = if wanted.is_empty() {
        vec![AUDIENCE]
    } else {
        wanted
    };
    match tokens::authenticate_for(context.server, token, &audiences) {
        Some((user, audiences)) => {
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        None => json!({"user": {}, "error": "invalid bearer token"}),
    }
}

fn access(context: &RequestContext<'_>, subject: &Identity, object: &Value) -> Value {
    let attributes = &object["spec"]["resourceAttributes"];
    let allowed = if attributes.is_object() {
        let field = |name: &str| text(attributes, &[name]).to_owned();
        let info = RequestInfo {
            group: field("group"),
            version: field("version"),
            resource: field("resource"),
            namespace: field("namespace"),
            name: field("name"),
            subresource: field("subresource"),
            ..RequestInfo::default()
        };
        rights::allows(context.server, subject, text(attributes, &["verb"]), &info)
    } else {
        let path = &object["spec"]["nonResourceAttributes"];
        rights::allows_path(
            context.server,
            subject,
            text(path, &["path"]),
            text(path, &["verb"]),
        )
    };
    json!({"allowed": allowed})
}
