//! From a request to the handler that answers it.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, header};

use crate::accept::{self, Form};
use crate::auth::rights;
use crate::body::{ApiResponse, Body, refusal, warn};
use crate::context::{RequestContext, options_kind};
use crate::identity::Identity;
use crate::kinds::{Builtin, Kind};
use crate::path::{self, Query, RequestInfo, Target};
use crate::state::ServerState;
use crate::status::{Cause, Status};
use crate::streams::Upgrade;
use crate::{discovery, read, remove, review, subresources, watch, write};

/// Answers any request.
pub(crate) async fn answer(
    server: &Arc<ServerState>,
    user: &Identity,
    parts: Parts,
    body: Bytes,
) -> ApiResponse {
    let head = parts.method == Method::HEAD;
    let mut response = match route(server, user, parts, body).await {
        Ok(response) => response,
        Err(status) => refusal(&status),
    };
    if head {
        *response.body_mut() = Body::full(Bytes::new());
    }
    response
}

async fn route(
    server: &Arc<ServerState>,
    user: &Identity,
    parts: Parts,
    body: Bytes,
) -> Result<ApiResponse, Status> {
    match path::parse(parts.uri.path()) {
        Target::Resource(info) => resource(server, user, parts, info, body).await,
        target => {
            let get = matches!(parts.method, Method::GET | Method::HEAD);
            rights::check_path(server, user, parts.uri.path(), parts.method.as_str())?;
            if !get {
                return Err(Status::method_not_allowed());
            }
            discovery::answer(server, &target, &parts)
        }
    }
}

/// What is known but not served, in words.
fn refuse_subresource(info: &RequestInfo) -> Option<Status> {
    let what = match (info.resource.as_str(), info.subresource.as_str()) {
        ("pods", "proxy") | ("services", "proxy") | ("nodes", "proxy") => {
            "kubectl proxy to a pod, service or node"
        }
        ("pods", "ephemeralcontainers") => "kubectl debug",
        ("pods", "resize") => "resizing a running pod",
        _ => return None,
    };
    Some(Status::not_implemented(format!(
        "{what} is not supported yet by Kinglet"
    )))
}

/// Longest name of a field manager, as Kubernetes has it.
const MANAGER_BYTES_MAX: usize = 128;

/// The kind that a request is for, if the request is one that it takes.
fn served(server: &ServerState, info: &RequestInfo, verb: &str) -> Result<Arc<Kind>, Status> {
    let registry = server.registry.load();
    let Some(kind) = registry
        .find(&info.group, &info.version, &info.resource)
        .cloned()
    else {
        return Err(Status::no_such_path());
    };
    if !kind.namespaced && !info.namespace.is_empty() {
        return Err(Status::no_such_path());
    }
    if let Some(words) = kind
        .absent
        .filter(|_| matches!(verb, "create" | "update" | "patch"))
    {
        return Err(Status::not_implemented(format!(
            "{} in version \"{}\" is not supported: {words}",
            kind.kind,
            kind.api_version()
        )));
    }
    if let Some(status) = refuse_subresource(info) {
        return Err(status);
    }
    if kind.namespaced && info.namespace.is_empty() && !kind.review {
        if !info.name.is_empty() {
            return Err(Status::no_such_path());
        }
        if verb == "create" {
            return Err(Status::method_not_allowed());
        }
    }
    Ok(kind)
}

/// Parameters whose values cannot be read, or are none of those they may have.
fn check_options(query: &Query, verb: &str) -> Result<(), Status> {
    let numbers: &[&str] = match verb {
        "list" | "watch" => &["limit", "timeoutSeconds"],
        "delete" | "deletecollection" => &["gracePeriodSeconds", "limit", "timeoutSeconds"],
        _ => &[],
    };
    if let Some(wrong) = query.not_a_number(numbers) {
        return Err(Status::bad_request(wrong));
    }
    let mut causes = Vec::new();
    let dry: Vec<&str> = query.all("dryRun").collect();
    if dry.iter().any(|value| *value != "All") {
        causes.push(Cause::unsupported(
            "dryRun",
            &serde_json::json!(dry),
            &["All"],
        ));
    }
    if query.get("fieldManager").len() > MANAGER_BYTES_MAX {
        causes.push(Cause {
            field: "fieldManager".to_owned(),
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {MANAGER_BYTES_MAX} bytes"),
        });
    }
    if verb == "list" && query.has("sendInitialEvents") {
        causes.push(Cause::forbidden(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        ));
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(
        "meta.k8s.io",
        options_kind(verb),
        "",
        &causes,
    ))
}

async fn resource(
    server: &Arc<ServerState>,
    user: &Identity,
    mut parts: Parts,
    info: RequestInfo,
    body: Bytes,
) -> Result<ApiResponse, Status> {
    let query = Query::parse(parts.uri.query());
    let verb = path::verb(&parts.method, &info, &query).ok_or_else(Status::method_not_allowed)?;
    rights::check(server, user, verb, &info)?;
    if server
        .registry
        .load()
        .version(&info.group, &info.version)
        .is_none()
    {
        return Ok(discovery::nothing());
    }
    let kind = served(server, &info, verb)?;
    check_options(&query, verb)?;
    let form = if matches!(verb, "get" | "list" | "watch") && info.subresource.is_empty() {
        accept::form(&parts.headers)?
    } else {
        Form::Plain
    };
    let header_text = |name| {
        parts
            .headers
            .get(name)
            .and_then(|v: &HeaderValue| v.to_str().ok())
            .unwrap_or("")
            .to_owned()
    };
    let content_type = header_text(header::CONTENT_TYPE);
    let agent = header_text(header::USER_AGENT);
    let mut context = RequestContext {
        server,
        user,
        kind,
        info,
        query,
        form,
        content_type,
        agent,
        body,
        warnings: Vec::new(),
        found: Vec::new(),
        verb,
        through: "",
        upgrade: Upgrade::of(&mut parts),
    };
    // Warnings go with refusals, too.
    let mut response = handle(&mut context, verb)
        .await
        .unwrap_or_else(|status| refusal(&status));
    if context.kind.is(Builtin::Endpoints) && !context.in_process() {
        context.warnings.insert(
            0,
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
                .to_owned(),
        );
    }
    if let (Some(warning), false) = (&context.kind.deprecation, context.in_process()) {
        context.warnings.insert(0, warning.clone());
    }
    if !context.warnings.is_empty() {
        warn(&mut response, &context.warnings);
    }
    Ok(response)
}

async fn handle(context: &mut RequestContext<'_>, verb: &str) -> Result<ApiResponse, Status> {
    if context.kind.review {
        return match verb {
            "create" => review::create(context),
            _ => Err(Status::method_not_allowed()),
        };
    }
    if !context.info.rest.is_empty() {
        return Err(Status::no_such_path());
    }
    match (verb, context.info.subresource.as_str()) {
        ("get", "") if context.query.flag("watch") => watch::watch(context).await,
        ("get", "" | "status") => {
            require_sub(context)?;
            read::get(context).await
        }
        ("list", "") => read::list(context).await,
        ("watch", "") => watch::watch(context).await,
        ("create", "") if context.info.name.is_empty() => write::create(context).await,
        ("update", "" | "status") if !context.info.name.is_empty() => {
            require_sub(context)?;
            write::update(context).await
        }
        ("patch", "" | "status") if !context.info.name.is_empty() => {
            require_sub(context)?;
            write::patch(context).await
        }
        ("delete", "") => remove::delete(context).await,
        ("deletecollection", "") => remove::delete_collection(context).await,
        (_, "") => Err(Status::method_not_allowed()),
        (verb, _) => subresources::answer(context, verb).await,
    }
}

/// `/status` exists only where the kind has it.
fn require_sub(context: &RequestContext<'_>) -> Result<(), Status> {
    if context.info.subresource == "status" && !context.kind.has_status {
        Err(Status::no_such_path())
    } else {
        Ok(())
    }
}
