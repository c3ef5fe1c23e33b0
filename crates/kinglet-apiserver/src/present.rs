//! From bytes in the version of the kind to the form a client asked for.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};

use crate::accept::Form;
use crate::builtin::event;
use crate::kinds::{Builtin, Kind};
use crate::path::Query;
use crate::status::Status;
use crate::table;

/// The second kind of Event, whose objects are stored in the form of the first.
pub(crate) fn is_second_event(kind: &Kind) -> bool {
    kind.is(Builtin::Event) && !kind.group.is_empty()
}

/// Bytes of an object as an answer shows it.
pub(crate) fn convert(kind: &Kind, bytes: &Bytes) -> Bytes {
    if is_second_event(kind) {
        Bytes::from(object(kind, bytes).to_string())
    } else {
        bytes.clone()
    }
}

/// The object of these bytes.
pub(crate) fn object(kind: &Kind, bytes: &[u8]) -> Value {
    let object: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
    if is_second_event(kind) {
        event::to_events_v1(&object)
    } else {
        object
    }
}

/// The object of a built-in kind as it is stored.
pub(crate) fn to_stored<'v>(kind: &Kind, object: &'v Value) -> Cow<'v, Value> {
    if is_second_event(kind) {
        Cow::Owned(event::from_events_v1(object))
    } else {
        Cow::Borrowed(object)
    }
}

/// Presents objects one by one.
pub(crate) struct Presenter {
    pub(crate) kind: Arc<Kind>,
    pub(crate) form: Form,
    pub(crate) rows: table::Rows,
    now: jiff::Timestamp,
}

impl Presenter {
    pub(crate) fn new(
        kind: &Arc<Kind>,
        form: Form,
        query: &Query,
        now: jiff::Timestamp,
    ) -> Result<Self, Status> {
        let rows = match query.get("includeObject") {
            "None" => table::Rows::Bare,
            "" | "Metadata" => table::Rows::Metadata,
            "Object" => table::Rows::Object,
            other => {
                return Err(Status::bad_request(format!(
                    "unrecognized includeObject value: \"{other}\""
                )));
            }
        };
        Ok(Self {
            kind: Arc::clone(kind),
            form,
            rows,
            now,
        })
    }

    pub(crate) fn at(&mut self, now: jiff::Timestamp) {
        self.now = now;
    }

    /// One object as an answer of its own, or as the object of a watch event.
    pub(crate) fn one(&self, bytes: &Bytes, with_columns: bool) -> Bytes {
        match self.form {
            Form::Plain | Form::Discovery(_) => convert(&self.kind, bytes),
            Form::Partial(version) | Form::PartialList(version) => {
                Bytes::from(crate::object::partial(&object(&self.kind, bytes), version).to_string())
            }
            Form::Table(version) => {
                let object = object(&self.kind, bytes);
                let revision = object
                    .pointer("/metadata/resourceVersion")
                    .cloned()
                    .unwrap_or_default();
                let row = table::row(&self.kind, &object, self.rows, version, self.now);
                Bytes::from(
                    self.table(
                        version,
                        &json!({"resourceVersion": revision}),
                        &[row],
                        with_columns,
                    )
                    .to_string(),
                )
            }
        }
    }

    /// A list as an answer.
    pub(crate) fn list(&self, objects: &[Bytes], metadata: &Map<String, Value>) -> Bytes {
        match self.form {
            Form::Plain | Form::Discovery(_) => {
                let head = json!({"apiVersion": self.kind.api_version(), "kind": self.kind.list_kind, "metadata": metadata});
                self.join(
                    &head,
                    objects.iter().map(|bytes| convert(&self.kind, bytes)),
                    objects.iter().map(Bytes::len).sum(),
                )
            }
            Form::Partial(version) | Form::PartialList(version) => {
                let head = json!({
                    "apiVersion": format!("meta.k8s.io/{version}"), "kind": "PartialObjectMetadataList", "metadata": metadata,
                });
                self.join(&head, objects.iter().map(|bytes| self.one(bytes, false)), 0)
            }
            Form::Table(version) => {
                let rows: Vec<Value> = objects
                    .iter()
                    .map(|bytes| {
                        table::row(
                            &self.kind,
                            &object(&self.kind, bytes),
                            self.rows,
                            version,
                            self.now,
                        )
                    })
                    .collect();
                Bytes::from(
                    self.table(version, &Value::Object(metadata.clone()), &rows, true)
                        .to_string(),
                )
            }
        }
    }

    fn table(&self, version: &str, metadata: &Value, rows: &[Value], with_columns: bool) -> Value {
        let columns = if with_columns {
            table::definitions(&self.kind)
        } else {
            Value::Array(Vec::new())
        };
        json!({
            "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
            "columnDefinitions": columns, "rows": rows,
        })
    }

    /// Joins finished objects without reading them again.
    fn join(&self, head: &Value, objects: impl Iterator<Item = Bytes>, size: usize) -> Bytes {
        let mut head = head.to_string();
        head.pop();
        let mut out = BytesMut::with_capacity(head.len() + size + 64);
        out.put_slice(head.as_bytes());
        out.put_slice(b",\"items\":[");
        for (at, object) in objects.enumerate() {
            if at > 0 {
                out.put_u8(b',');
            }
            out.put_slice(&object);
        }
        out.put_slice(b"]}");
        out.freeze()
    }
}
