//! The columns that a kind's table has: computed for built-in kinds, JSON paths for custom ones.

use serde_json::Value;

use crate::builtin_kind::Builtin;
use crate::jsonpath::JsonPath;
use crate::object::text;

/// The columns of a kind.
#[derive(Debug)]
pub(crate) enum Columns {
    /// Built in: the cells are computed by `rows`.
    Builtin(Builtin),
    /// Printer columns of a CRD.
    Custom(Vec<Column>),
}

/// One printer column.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: JsonPath,
}

impl Columns {
    pub(crate) fn builtin(builtin: Builtin) -> Self {
        Self::Builtin(builtin)
    }

    pub(crate) fn custom(list: &[Value]) -> Self {
        let columns = list.iter().map(|column| Column {
            name: text(column, &["name"]).to_owned(),
            kind: text(column, &["type"]).to_owned(),
            format: text(column, &["format"]).to_owned(),
            description: text(column, &["description"]).to_owned(),
            priority: column["priority"].as_i64().unwrap_or(0),
            path: JsonPath::parse(text(column, &["jsonPath"])),
        });
        if list.is_empty() {
            return Self::Custom(vec![Column {
                name: "Age".to_owned(),
                kind: "date".to_owned(),
                format: String::new(),
                description: "CreationTimestamp is a timestamp representing the server time when this object was created.".to_owned(),
                priority: 0,
                path: JsonPath::parse(".metadata.creationTimestamp"),
            }]);
        }
        Self::Custom(columns.collect())
    }
}
