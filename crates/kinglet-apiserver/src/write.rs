//! `create`, `update`, `patch`: from an object as sent to an object as stored.

mod create;
mod replace;

use crate::auth::rights;
use crate::body::ApiResponse;
use crate::context::RequestContext;
use crate::conversion;
use crate::decode;
use crate::kinds::Builtin;
use crate::object::{at, blank, meta, text};
use crate::patching;
use crate::status::{Cause, Status};
use create::create_object;
pub(crate) use replace::replace;

/// How often a patch is tried again when another write comes in between.
const PATCH_TRIES: usize = 5;

pub(crate) async fn create(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let mut object = decode::value(context)?;
    decode::check_kind(context, &mut object)?;
    decode::check_name_and_namespace(context, &mut object)?;
    let stored = create_object(context, object, None).await?;
    decode::answer(context, 201, &stored).await
}

pub(crate) async fn update(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let mut object = decode::value(context)?;
    decode::check_kind(context, &mut object)?;
    if text(&object, &["metadata", "name"]).is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            context.info.name
        )));
    }
    decode::check_name_and_namespace(context, &mut object)?;
    let key = context
        .kind
        .key(&context.info.namespace, &context.info.name);
    let Some(entry) = context.server.store.get(&key) else {
        if context.kind.builtin.is_some_and(Builtin::creates_on_update)
            && context.info.subresource.is_empty()
        {
            may_create(context)?;
            meta(&mut object).remove("resourceVersion");
            let stored = create_object(context, object, None).await?;
            return decode::answer(context, 201, &stored).await;
        }
        return Err(context.not_found(&context.info.name));
    };
    if blank(at(&object, &["metadata", "resourceVersion"])) && context.kind.builtin.is_none() {
        let cause = Cause::invalid(
            "metadata.resourceVersion",
            &0.into(),
            "must be specified for an update",
        );
        return Err(Status::invalid(
            &context.kind.group,
            &context.kind.plural,
            &context.info.name,
            &[cause],
        ));
    }
    let old = conversion::object(context.server, &context.kind, &entry.value).await?;
    let stored = replace(context, &entry, &old, object, None).await?;
    decode::answer(context, 200, &stored).await
}

/// A PUT or an apply that makes the object asks for another verb than it came with.
fn may_create(context: &RequestContext<'_>) -> Result<(), Status> {
    rights::check(context.server, context.user, "create", &context.info)
}

pub(crate) async fn patch(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let patch = patching::read(context)?;
    let key = context
        .kind
        .key(&context.info.namespace, &context.info.name);
    let mut tries = 0;
    loop {
        tries += 1;
        let Some(entry) = context.server.store.get(&key) else {
            if patch.creates() && context.info.subresource.is_empty() {
                may_create(context)?;
                let mut object = patch.apply(context, None).await?;
                decode::check_kind(context, &mut object)?;
                decode::check_name_and_namespace(context, &mut object)?;
                match create_object(context, object, Some(&patch)).await {
                    Err(status) if status.reason == "AlreadyExists" && tries < PATCH_TRIES => {
                        continue;
                    }
                    Err(status) => return Err(status),
                    Ok(stored) => return decode::answer(context, 201, &stored).await,
                }
            }
            return Err(context.not_found(&context.info.name));
        };
        let old = conversion::object(context.server, &context.kind, &entry.value).await?;
        let mut object = patch.apply(context, Some(&old)).await?;
        let (kept, warned) = (
            context.warnings.len(),
            std::mem::take(&mut context.warnings),
        );
        decode::check_kind(context, &mut object)?;
        decode::check_name_and_namespace(context, &mut object)?;
        // A patch that names a version wants exactly that one; any other takes what is there.
        let own = text(&object, &["metadata", "resourceVersion"])
            != text(&old, &["metadata", "resourceVersion"]);
        context.warnings = warned;
        match replace(context, &entry, &old, object, Some(&patch)).await {
            Err(status) if status.reason == "Conflict" && !own && tries < PATCH_TRIES => {
                context.warnings.truncate(kept)
            }
            Err(status) => return Err(status),
            Ok(stored) => return decode::answer(context, 200, &stored).await,
        }
    }
}
