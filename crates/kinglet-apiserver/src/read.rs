//! `get` and `list`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::accept::Form;
use crate::body::{ApiResponse, json_bytes};
use crate::context::RequestContext;
use crate::conversion;
use crate::kinds::Kind;
use crate::present::Presenter;
use crate::selector::Selector;
use crate::status::{Cause, Status};

/// Objects read from the store at once while a selector is applied.
const CHUNK: usize = 1000;

pub(crate) async fn get(context: &RequestContext<'_>) -> Result<ApiResponse, Status> {
    let name = &context.info.name;
    fresh_enough(context)?;
    let entry = context
        .server
        .store
        .get(&context.kind.key(&context.info.namespace, name))
        .ok_or_else(|| context.not_found(name))?;
    let presenter = Presenter::new(
        &context.kind,
        context.form,
        &context.query,
        context.server.options.clock.now(),
    )?;
    let mut found = in_version(context, vec![entry.value]).await?;
    let object = found.pop().unwrap_or_default();
    Ok(json_bytes(200, presenter.one(&object, true)))
}

/// Stored objects in the version of the request. Who reads only metadata, as garbage collectors do, waits for no webhook.
async fn in_version(
    context: &RequestContext<'_>,
    objects: Vec<Bytes>,
) -> Result<Vec<Bytes>, Status> {
    if waits_for_no_webhook(&context.kind, context.form) {
        return Ok(objects);
    }
    conversion::presentable(context.server, &context.kind, objects).await
}

/// Whether an answer is made of stored objects as they are, although a webhook would convert them: metadata is the same
/// in all versions but for labels and annotations, and a webhook that is down must not stop garbage collection.
pub(crate) fn waits_for_no_webhook(kind: &Kind, form: Form) -> bool {
    matches!(form, Form::Partial(_) | Form::PartialList(_))
        && kind.conversion.as_ref().is_some_and(|c| c.waits())
}

/// Returns the version that is asked for; refuses one that lies in the future.
fn fresh_enough(context: &RequestContext<'_>) -> Result<u64, Status> {
    let asked = parse_revision(context.query.get("resourceVersion"))?;
    let current = context.server.store.revision();
    if asked > current {
        Err(Status::future_revision(asked, current))
    } else {
        Ok(asked)
    }
}

/// Refuses list options.
pub(crate) fn list_options(cause: &Cause) -> Status {
    Status::invalid(
        "meta.k8s.io",
        "ListOptions",
        "",
        std::slice::from_ref(cause),
    )
}

/// Reads a `resourceVersion`; empty is 0.
pub(crate) fn parse_revision(text: &str) -> Result<u64, Status> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        Status::bad_request(format!("invalid resource version: resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"))
    })
}

pub(crate) fn selector(context: &RequestContext<'_>) -> Result<Selector, Status> {
    let selector = Selector::parse(
        &context.kind,
        context.query.get("labelSelector"),
        context.query.get("fieldSelector"),
    )?;
    Ok(if context.info.name.is_empty() {
        selector
    } else {
        selector.with_name(&context.info.name)
    })
}

/// The content of a `continue` token.
struct Continue {
    revision: u64,
    after: String,
}

impl Continue {
    fn encode(&self) -> String {
        let token = json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": self.after});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(text: &str, prefix: &str) -> Result<Self, Status> {
        let wrong = || Status::bad_request("invalid continue token: continue key is not valid");
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|_| wrong())?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        let after = token["start"].as_str().ok_or_else(wrong)?.to_owned();
        if !after.starts_with(prefix) {
            return Err(wrong());
        }
        Ok(Self {
            revision: token["rv"].as_u64().ok_or_else(wrong)?,
            after,
        })
    }
}

pub(crate) async fn list(context: &RequestContext<'_>) -> Result<ApiResponse, Status> {
    let selector = selector(context)?;
    let prefix = context.kind.range(&context.info.namespace);
    let limit = limit(context)?;
    let asked = fresh_enough(context)?;
    let (at, after) = start(context, &prefix, asked)?;
    let page = collect(context, &selector, &prefix, limit, at, after).await?;
    let presenter = Presenter::new(
        &context.kind,
        context.form,
        &context.query,
        context.server.options.clock.now(),
    )?;
    let mut metadata = Map::new();
    metadata.insert(
        "resourceVersion".to_owned(),
        page.revision.to_string().into(),
    );
    if let Some(next) = page.next {
        metadata.insert("continue".to_owned(), next.into());
        if selector.is_empty() {
            metadata.insert("remainingItemCount".to_owned(), page.remaining.into());
        }
    }
    Ok(json_bytes(200, presenter.list(&page.objects, &metadata)))
}

/// Returns the most objects that the client wants; 0 for all.
fn limit(context: &RequestContext<'_>) -> Result<usize, Status> {
    match context.query.get("limit") {
        "" => Ok(0),
        text => match text.parse::<i64>() {
            Ok(number) => Ok(usize::try_from(number.max(0)).unwrap_or(usize::MAX)),
            Err(_) => Err(Status::bad_request(format!(
                "strconv.ParseInt: parsing \"{text}\": invalid syntax"
            ))),
        },
    }
}

/// Returns the revision that the list shows (none for the newest) and the key after which it goes on.
fn start(
    context: &RequestContext<'_>,
    prefix: &str,
    asked: u64,
) -> Result<(Option<u64>, Option<String>), Status> {
    match context.query.get("continue") {
        "" => Ok((exact_revision(context, asked)?, None)),
        _ if asked > 0 => Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        )),
        token => {
            let token = Continue::decode(token, prefix)?;
            // Revision 0 continues at the newest one, as the answer to an expired token offers.
            let revision = Some(token.revision).filter(|revision| *revision > 0);
            Ok((revision, Some(token.after)))
        }
    }
}

/// Returns the revision that `resourceVersionMatch` asks for; none for the newest.
fn exact_revision(context: &RequestContext<'_>, asked: u64) -> Result<Option<u64>, Status> {
    match context.query.get("resourceVersionMatch") {
        "" => Ok(None),
        _ if context.query.get("resourceVersion").is_empty() => {
            Err(list_options(&Cause::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            )))
        }
        "Exact" if asked == 0 => Err(list_options(&Cause::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ))),
        "Exact" => Ok(Some(asked)),
        "NotOlderThan" => Ok(None),
        other => {
            let cause = Cause::unsupported(
                "resourceVersionMatch",
                &other.into(),
                &["Exact", "NotOlderThan", ""],
            );
            Err(list_options(&cause))
        }
    }
}

struct Listed {
    objects: Vec<Bytes>,
    revision: u64,
    remaining: usize,
    next: Option<String>,
}

async fn collect(
    context: &RequestContext<'_>,
    selector: &Selector,
    prefix: &str,
    limit: usize,
    at: Option<u64>,
    after: Option<String>,
) -> Result<Listed, Status> {
    let store = &context.server.store;
    if at.is_none()
        && let Some(found) = one(context, selector).await?
    {
        return Ok(found);
    }
    let mut listed = Listed {
        objects: Vec::new(),
        revision: 0,
        remaining: 0,
        next: None,
    };
    let (mut at, mut after) = (at, after);
    loop {
        let ask = match limit {
            0 => 0,
            limit if selector.is_empty() => limit,
            _ => CHUNK,
        };
        let page = store
            .list(prefix, after.as_deref(), ask, at)
            .map_err(|_| expired(after.as_deref()))?;
        listed.revision = page.revision;
        at = Some(page.revision);
        let (count, mut last) = (page.entries.len(), 0);
        let (keys, stored): (Vec<_>, Vec<Bytes>) = page
            .entries
            .into_iter()
            .map(|(key, entry)| (key, entry.value))
            .unzip();
        let objects = in_version(context, stored).await?;
        for (index, (key, object)) in keys.iter().zip(&objects).enumerate() {
            last = index;
            if selector.is_empty() || selector.matches(&key[context.kind.prefix.len()..], object) {
                listed.objects.push(object.clone());
                if limit > 0 && listed.objects.len() == limit {
                    break;
                }
            }
        }
        let left = page.remaining + count.saturating_sub(last + 1);
        let full = limit > 0 && listed.objects.len() == limit;
        if left == 0 || count == 0 {
            return Ok(listed);
        }
        let key = keys[last].to_string();
        if full {
            listed.remaining = left;
            listed.next = Some(
                Continue {
                    revision: page.revision,
                    after: key,
                }
                .encode(),
            );
            return Ok(listed);
        }
        after = Some(key);
    }
}

/// Returns the one object that the selector names, or none where it names none.
async fn one(context: &RequestContext<'_>, selector: &Selector) -> Result<Option<Listed>, Status> {
    let Some(name) = selector.name() else {
        return Ok(None);
    };
    if context.kind.namespaced && context.info.namespace.is_empty() {
        return Ok(None);
    }
    let store = &context.server.store;
    let key = context.kind.key(&context.info.namespace, name);
    let revision = store.revision();
    let found = store.get(&key).map(|entry| entry.value);
    let mut objects = in_version(context, found.into_iter().collect()).await?;
    objects.retain(|object| selector.matches(&key[context.kind.prefix.len()..], object));
    Ok(Some(Listed {
        objects,
        revision,
        remaining: 0,
        next: None,
    }))
}

/// Refuses a page whose revision is compacted, with a token that continues at the newest one.
fn expired(after: Option<&str>) -> Status {
    match after {
        None => Status::expired("The resourceVersion for the provided list is too old."),
        Some(after) => {
            let mut status = Status::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the \
                 continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with \
                 the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the \
                 first chunk was returned and now may show up in the list.",
            );
            status.next = Some(
                Continue {
                    revision: 0,
                    after: after.to_owned(),
                }
                .encode(),
            );
            status
        }
    }
}
