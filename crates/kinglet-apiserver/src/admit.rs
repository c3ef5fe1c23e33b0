//! Calls the injected admission for an object on its way in.

use serde_json::Value;

use crate::admission::{AccessQuestion, AdmissionRequest, Denied, Operation, Rights};
use crate::auth::rights;
use crate::context::RequestContext;
use crate::object;
use crate::path::RequestInfo;
use crate::status::Status;

/// Asks the injected admission; `changing` is the first pass.
pub(crate) fn admit(
    context: &mut RequestContext<'_>,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    changing: bool,
) -> Result<(), Status> {
    let Some(admission) = context.server.options.admission.clone() else {
        return Ok(());
    };
    if !context.info.subresource.is_empty() {
        return Ok(());
    }
    // What the second pass changes is not kept.
    let mut copy;
    let object = if changing {
        object
    } else {
        copy = object.clone();
        &mut copy
    };
    let name = object::name(if object.is_null() {
        old.unwrap_or(object)
    } else {
        object
    })
    .to_owned();
    let kind = std::sync::Arc::clone(&context.kind);
    let (server, user) = (context.server, context.user);
    let may = |question: &AccessQuestion<'_>| {
        let info = RequestInfo {
            group: question.group.to_owned(),
            resource: question.resource.to_owned(),
            namespace: question.namespace.to_owned(),
            name: question.name.to_owned(),
            ..RequestInfo::default()
        };
        rights::allows(server, user, question.verb, &info)
    };
    let mut request = AdmissionRequest {
        operation,
        group: &kind.group,
        version: &kind.version,
        kind: &kind.kind,
        resource: &kind.plural,
        namespace: &context.info.namespace,
        name: &name,
        user,
        rights: Rights(&may),
        dry_run: context.query.has("dryRun"),
        object,
        old,
    };
    let verdict = if changing {
        admission.admit(&mut request)
    } else {
        admission.check(&mut request)
    };
    match verdict {
        Ok(warnings) => {
            context.warnings.extend(warnings);
            Ok(())
        }
        Err(Denied {
            code,
            message,
            warnings,
        }) => {
            context.warnings.extend(warnings);
            let reason = match code {
                400 => "BadRequest",
                403 => "Forbidden",
                409 => "Conflict",
                422 => "Invalid",
                _ => "",
            };
            Err(Status::new(code, reason, message))
        }
    }
}
