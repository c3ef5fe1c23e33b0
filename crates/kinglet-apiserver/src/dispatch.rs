//! From a request to the handler that answers it.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};

use crate::accept::{self, Form};
use crate::auth::rights;
use crate::body::{Answer, Body, refusal, warn};
use crate::identity::{Identity, Origin};
use crate::kinds::{Builtin, Kind};
use crate::path::{self, Place, Query, Target};
use crate::server::Core;
use crate::status::{Cause, Status};
use crate::{discovery, read, remove, review, subresources, watch, write};

/// One request for a resource.
pub(crate) struct Call<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) who: &'a Identity,
    pub(crate) kind: Arc<Kind>,
    pub(crate) place: Place,
    pub(crate) query: Query,
    pub(crate) form: Form,
    pub(crate) content_type: String,
    pub(crate) agent: String,
    pub(crate) body: Bytes,
    pub(crate) warnings: Vec<String>,
    /// What strict decoding has found so far.
    pub(crate) found: Vec<String>,
    pub(crate) verb: &'static str,
    /// The subresource whose owner writes, where the parent is what is written.
    pub(crate) through: &'static str,
}

impl Call<'_> {
    /// Nothing is to be stored.
    pub(crate) fn dry_run(&self) -> bool {
        self.query.has("dryRun")
    }

    pub(crate) fn in_process(&self) -> bool {
        self.who.origin == Origin::InProcess
    }

    pub(crate) fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.kind.group, &self.kind.plural, name)
    }

    /// Who is written down as the owner of fields.
    pub(crate) fn manager(&self) -> &str {
        match self.query.get("fieldManager") {
            "" => self
                .agent
                .split('/')
                .next()
                .filter(|agent| !agent.is_empty())
                .unwrap_or("unknown"),
            manager => manager,
        }
    }
}

/// Answers any request.
pub(crate) async fn answer(core: &Arc<Core>, who: &Identity, parts: Parts, body: Bytes) -> Answer {
    let head = parts.method == Method::HEAD;
    let mut response = match route(core, who, parts, body).await {
        Ok(response) => response,
        Err(status) => refusal(&status),
    };
    if head {
        *response.body_mut() = Body::full(Bytes::new());
    }
    response
}

async fn route(
    core: &Arc<Core>,
    who: &Identity,
    parts: Parts,
    body: Bytes,
) -> Result<Answer, Status> {
    match path::parse(parts.uri.path()) {
        Target::Resource(place) => resource(core, who, parts, place, body).await,
        target => {
            let get = matches!(parts.method, Method::GET | Method::HEAD);
            rights::check_path(core, who, parts.uri.path(), parts.method.as_str())?;
            if !get {
                return Err(Status::method_not_allowed());
            }
            discovery::answer(core, &target, &parts)
        }
    }
}

/// What is known but not served, in words.
fn refuse_subresource(place: &Place) -> Option<Status> {
    let what = match (place.resource.as_str(), place.subresource.as_str()) {
        ("pods", "exec") => "kubectl exec",
        ("pods", "attach") => "kubectl attach",
        ("pods", "portforward") => "kubectl port-forward",
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

async fn resource(
    core: &Arc<Core>,
    who: &Identity,
    parts: Parts,
    place: Place,
    body: Bytes,
) -> Result<Answer, Status> {
    let query = Query::parse(parts.uri.query());
    let verb = path::verb(&parts.method, &place, &query).ok_or_else(Status::method_not_allowed)?;
    rights::check(core, who, verb, &place)?;
    let registry = core.registry.load_full();
    let Some(kind) = registry
        .find(&place.group, &place.version, &place.resource)
        .cloned()
    else {
        return Err(Status::no_such_path());
    };
    if !kind.namespaced && !place.namespace.is_empty() {
        return Err(Status::no_such_path());
    }
    if let Some(status) = refuse_subresource(&place) {
        return Err(status);
    }
    if kind.namespaced && place.namespace.is_empty() && !kind.review {
        if !place.name.is_empty() {
            return Err(Status::no_such_path());
        }
        if verb == "create" {
            return Err(Status::method_not_allowed());
        }
    }
    let dry: Vec<&str> = query.all("dryRun").collect();
    if dry.iter().any(|value| *value != "All") {
        let cause = Cause::unsupported("dryRun", &serde_json::json!(dry), &["All"]);
        return Err(Status::invalid(
            "meta.k8s.io",
            options_kind(verb),
            "",
            &[cause],
        ));
    }
    let form = if matches!(verb, "get" | "list" | "watch") && place.subresource.is_empty() {
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
    let mut call = Call {
        core,
        who,
        kind,
        place,
        query,
        form,
        content_type,
        agent,
        body,
        warnings: Vec::new(),
        found: Vec::new(),
        verb,
        through: "",
    };
    // Warnings go with refusals, too.
    let mut response = handle(&mut call, verb)
        .await
        .unwrap_or_else(|status| refusal(&status));
    if call.kind.is(Builtin::Endpoints) && !call.in_process() {
        call.warnings.insert(
            0,
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
                .to_owned(),
        );
    }
    if !call.warnings.is_empty() {
        warn(&mut response, &call.warnings);
    }
    Ok(response)
}

/// The name of the options that a verb takes.
pub(crate) fn options_kind(verb: &str) -> &'static str {
    match verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        "delete" | "deletecollection" => "DeleteOptions",
        _ => "ListOptions",
    }
}

async fn handle(call: &mut Call<'_>, verb: &str) -> Result<Answer, Status> {
    if call.kind.review {
        return match verb {
            "create" => review::create(call),
            _ => Err(Status::method_not_allowed()),
        };
    }
    if !call.place.rest.is_empty() {
        return Err(Status::no_such_path());
    }
    match (verb, call.place.subresource.as_str()) {
        ("get", "") if call.query.flag("watch") => watch::watch(call),
        ("get", "" | "status") => {
            require_sub(call)?;
            read::get(call)
        }
        ("list", "") => read::list(call),
        ("watch", "") => watch::watch(call),
        ("create", "") if call.place.name.is_empty() => write::create(call).await,
        ("update", "" | "status") if !call.place.name.is_empty() => {
            require_sub(call)?;
            write::update(call).await
        }
        ("patch", "" | "status") if !call.place.name.is_empty() => {
            require_sub(call)?;
            write::patch(call).await
        }
        ("delete", "") => remove::delete(call).await,
        ("deletecollection", "") => remove::delete_collection(call).await,
        (_, "") => Err(Status::method_not_allowed()),
        (verb, _) => subresources::answer(call, verb).await,
    }
}

/// `/status` exists only where the kind has it.
fn require_sub(call: &Call<'_>) -> Result<(), Status> {
    if call.place.subresource == "status" && !call.kind.has_status {
        Err(Status::no_such_path())
    } else {
        Ok(())
    }
}

/// Used where a stream begins at once.
pub(crate) fn streaming(response: &mut Answer, content_type: &'static str) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
}
