//! Objects of a custom kind in its versions: as they are stored, as a request asks for them, as managers have written them.
//!
//! Flow: stored bytes -> **here** (the request's version) -> [`crate::present`] (the form asked for); an object to be written
//! -> **here** (the storage version) -> the store.
//! Always: an object that is in the version already is not touched; a webhook is asked outside of every lock, with a bound
//! on time, size and number of calls, so that one that hangs holds only the requests for its own kind.

pub(crate) mod review;
mod webhook;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::kinds::Kind;
use crate::object::text;
use crate::present;
use crate::schema::Schema;
use crate::state::ServerState;
use crate::status::Status;
pub(crate) use webhook::{Places, Webhook};

/// Converts an object of one definition to another of its versions (`v1beta2`): what a conversion webhook does elsewhere.
pub type Convert = Arc<dyn Fn(&Value, &str) -> Result<Value, String> + Send + Sync>;

/// The versions of a custom kind, and how its objects get from one to another.
#[derive(Debug)]
pub(crate) struct Conversion {
    pub(crate) strategy: Strategy,
    /// All versions of the definition by `apiVersion`, also those that are not served.
    pub(crate) versions: BTreeMap<String, VersionTypes>,
}

/// What the merge of fields needs to know about a version.
#[derive(Debug)]
pub(crate) struct VersionTypes {
    pub(crate) schema: Option<Arc<Schema>>,
    pub(crate) has_status: bool,
}

/// How objects are converted.
pub(crate) enum Strategy {
    /// Only the `apiVersion` changes.
    None,
    /// A function of this process.
    InProcess(Convert),
    /// Whoever the definition names.
    Webhook(Webhook),
}

impl std::fmt::Debug for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::InProcess(_) => "InProcess",
            Self::Webhook(_) => "Webhook",
        })
    }
}

impl Conversion {
    /// Whether a conversion has to wait for somebody else.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.strategy, Strategy::Webhook(_))
    }

    /// Converts without waiting; none where that is not possible.
    pub(crate) fn at_once(&self, object: &Value, version: &str) -> Option<Result<Value, Status>> {
        match &self.strategy {
            Strategy::None => {
                let mut converted = object.clone();
                set_version(&mut converted, version);
                Some(Ok(converted))
            }
            Strategy::InProcess(convert) => {
                let (_, short) = version.rsplit_once('/').unwrap_or(("", version));
                Some(convert(object, short).map_err(|detail| {
                    failed(format!(
                        "conversion for {} failed: {detail}",
                        review::kind_of(object)
                    ))
                }))
            }
            Strategy::Webhook(_) => None,
        }
    }

    /// Converts one object.
    pub(crate) async fn one(
        &self,
        server: &ServerState,
        object: Value,
        version: &str,
    ) -> Result<Value, Status> {
        if text(&object, &["apiVersion"]) == version {
            return Ok(object);
        }
        match (&self.strategy, self.at_once(&object, version)) {
            (_, Some(converted)) => converted,
            (Strategy::Webhook(webhook), None) => {
                let mut converted = webhook
                    .convert(server, vec![object], version)
                    .await
                    .map_err(failed)?;
                converted
                    .pop()
                    .ok_or_else(|| failed("the conversion webhook returned no object".to_owned()))
            }
            (Strategy::None | Strategy::InProcess(_), None) => Ok(object),
        }
    }

    /// Converts stored objects; those in the version already are given back as they are.
    async fn all(
        &self,
        server: &ServerState,
        mut objects: Vec<Bytes>,
        version: &str,
    ) -> Result<Vec<Bytes>, Status> {
        let others: Vec<usize> = (0..objects.len())
            .filter(|at| !is_in(&objects[*at], version))
            .collect();
        let parse = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let Strategy::Webhook(webhook) = &self.strategy else {
            for at in others {
                let converted = self.one(server, parse(&objects[at]), version).await?;
                objects[at] = Bytes::from(converted.to_string());
            }
            return Ok(objects);
        };
        for batch in review::batches(&others, |at| objects[*at].len()) {
            let sent = batch.iter().map(|at| parse(&objects[*at])).collect();
            let converted = webhook
                .convert(server, sent, version)
                .await
                .map_err(failed)?;
            for (at, object) in batch.iter().zip(converted) {
                objects[*at] = Bytes::from(object.to_string());
            }
        }
        Ok(objects)
    }
}

fn set_version(object: &mut Value, version: &str) {
    if let Some(now) = object.get_mut("apiVersion") {
        *now = version.into();
    }
}

/// A conversion that did not work is answered as the real server answers it: 500, without a reason.
fn failed(message: String) -> Status {
    Status::new(500, "", message)
}

/// Whether stored bytes have this `apiVersion`. The store's objects begin with it; any other order is read.
pub(crate) fn is_in(bytes: &[u8], version: &str) -> bool {
    let beginning = bytes
        .strip_prefix(b"{\"apiVersion\":\"")
        .and_then(|rest| rest.strip_prefix(version.as_bytes()));
    if beginning.is_some_and(|rest| rest.first() == Some(&b'"')) {
        return true;
    }
    #[derive(serde::Deserialize)]
    struct Versioned<'a> {
        #[serde(borrow, default, rename = "apiVersion")]
        version: Cow<'a, str>,
    }
    !bytes.starts_with(b"{\"apiVersion\":\"")
        && serde_json::from_slice::<Versioned<'_>>(bytes)
            .is_ok_and(|object| object.version == version)
}

/// Whether stored bytes are as they would be stored today.
pub(crate) fn is_stored_form(kind: &Kind, bytes: &[u8]) -> bool {
    kind.conversion.is_none() || is_in(bytes, &kind.stored_version)
}

/// Stored objects in the version of the request.
pub(crate) async fn presentable(
    server: &ServerState,
    kind: &Kind,
    objects: Vec<Bytes>,
) -> Result<Vec<Bytes>, Status> {
    match &kind.conversion {
        Some(conversion) => conversion.all(server, objects, &kind.api_version()).await,
        None => Ok(objects),
    }
}

/// A stored object in the version of the request.
pub(crate) async fn one_presentable(
    server: &ServerState,
    kind: &Kind,
    bytes: &Bytes,
) -> Result<Bytes, Status> {
    if kind.conversion.is_none() {
        return Ok(bytes.clone());
    }
    let mut converted = presentable(server, kind, vec![bytes.clone()]).await?;
    Ok(converted.pop().unwrap_or_default())
}

/// A stored object in the version of the request, read.
pub(crate) async fn object(
    server: &ServerState,
    kind: &Kind,
    bytes: &Bytes,
) -> Result<Value, Status> {
    let bytes = one_presentable(server, kind, bytes).await?;
    Ok(present::object(kind, &bytes))
}

/// An object as it is stored.
pub(crate) async fn stored_form<'v>(
    server: &ServerState,
    kind: &Kind,
    object: &'v Value,
) -> Result<Cow<'v, Value>, Status> {
    match &kind.conversion {
        Some(_) if text(object, &["apiVersion"]) == kind.stored_version => {
            Ok(Cow::Borrowed(object))
        }
        Some(conversion) => conversion
            .one(server, object.clone(), &kind.stored_version)
            .await
            .map(Cow::Owned),
        None => Ok(present::to_stored(kind, object)),
    }
}

#[cfg(test)]
mod tests {
    use super::is_in;

    #[test]
    fn the_version_of_stored_bytes_is_seen() {
        for (bytes, version, is) in [
            (r#"{"apiVersion":"a.b/v1","kind":"X"}"#, "a.b/v1", true),
            (r#"{"apiVersion":"a.b/v10","kind":"X"}"#, "a.b/v1", false),
            (r#"{"apiVersion":"a.b/v1","kind":"X"}"#, "a.b/v10", false),
            (r#"{"kind":"X","apiVersion":"a.b/v1"}"#, "a.b/v1", true),
            (r#"{"kind":"X","apiVersion":"a.b/v2"}"#, "a.b/v1", false),
            (r#"{"kind":"X"}"#, "a.b/v1", false),
        ] {
            assert_eq!(is_in(bytes.as_bytes(), version), is, "{bytes} {version}");
        }
    }
}
