//! `DeleteOptions`.

use serde_json::Value;

use crate::context::RequestContext;
use crate::decode;
use crate::object::{self, number, text};
use crate::path::Query;
use crate::status::{Cause, Status};

/// `DeleteOptions`, from body or query.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(super) grace_seconds: Option<i64>,
    pub(super) propagation: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) revision: Option<String>,
    pub(super) dry_run: bool,
}

pub(crate) fn delete_options(context: &mut RequestContext<'_>) -> Result<DeleteOptions, Status> {
    let mut body = Value::Null;
    if !context.body.is_empty() {
        let protobuf = context
            .content_type
            .starts_with("application/vnd.kubernetes.protobuf");
        body = if protobuf {
            crate::protobuf::decode(&context.body).map_err(|error| {
                Status::bad_request(format!("decoding the delete options: {error}"))
            })?
        } else {
            decode::parse(&context.body, decode::Strictness::Ignore)?.0
        };
    }
    let query = &context.query;
    let some = |path: &[&str]| Some(text(&body, path).to_owned()).filter(|value| !value.is_empty());
    Ok(DeleteOptions {
        grace_seconds: number(&body, &["gracePeriodSeconds"])
            .or_else(|| query.number("gracePeriodSeconds")),
        propagation: propagation(&body, query)?,
        uid: some(&["preconditions", "uid"]),
        revision: some(&["preconditions", "resourceVersion"]),
        dry_run: query.has("dryRun") || !object::items(&body, &["dryRun"]).is_empty(),
    })
}

/// Returns the propagation policy, from `propagationPolicy` or the older `orphanDependents`.
fn propagation(body: &Value, query: &Query) -> Result<Option<String>, Status> {
    let propagation = match text(body, &["propagationPolicy"]) {
        "" => query.get("propagationPolicy"),
        policy => policy,
    };
    let orphan = body
        .get("orphanDependents")
        .and_then(Value::as_bool)
        .or_else(|| {
            query
                .has("orphanDependents")
                .then(|| query.flag("orphanDependents"))
        });
    match (propagation, orphan) {
        ("", None) => Ok(None),
        ("", Some(orphan)) => Ok(Some(
            if orphan { "Orphan" } else { "Background" }.to_owned(),
        )),
        ("Orphan" | "Background" | "Foreground", None) => Ok(Some(propagation.to_owned())),
        ("Orphan" | "Background" | "Foreground", Some(_)) => {
            let value = Value::from(propagation);
            let cause = Cause::invalid(
                "propagationPolicy",
                &value,
                "orphanDependents and deletionPropagation cannot be both set",
            );
            Err(Status::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &[cause],
            ))
        }
        (other, _) => {
            let cause = Cause::unsupported(
                "propagationPolicy",
                &other.into(),
                &["Foreground", "Background", "Orphan", "nil"],
            );
            Err(Status::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &[cause],
            ))
        }
    }
}
