//! The fields of Kubernetes' built-in kinds: protobuf numbers, JSON names, types, and how lists merge.
//!
//! Flow: `cargo xtask protobuf-table` writes `fields/builtin.txt` from the published Go types -> parsed here at first use ->
//! read by protobuf decoding, strategic merge, server-side apply, field validation and OpenAPI.
//! Always: the table is the only thing the server knows about built-in kinds; it is never written by hand.
//!
//! The format, a line each:
//! - `%PACKAGE GROUP OPENAPI-PREFIX` (`-` is the core group; the version is the package's last part)
//! - `~PACKAGE.NAME TYPE`: a named type that is not a struct
//! - `@PACKAGE.NAME [atomic]`: a struct, followed by its fields
//! - `NUMBER NAME TYPE MARK…`: a field; the name `<` is an inlined struct; marks: `?` omitempty, `p=` patch strategy, `k=` merge
//!   key, `l=` list type, `lk=` list map keys, `m=atomic`, `d=` default (JSON)
//!
//! Types: `*T` pointer, `[]T` list, `{}T` map with text keys, a keyword, or a name from the table.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("fields/builtin.txt")));

/// The table of this build.
pub(crate) fn table() -> &'static Table {
    &TABLE
}

/// A type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Text,
    Bool,
    Int32,
    Int64,
    Float,
    Bytes,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    Duration,
    Raw,
    FieldsV1,
    Any,
    Struct(u16),
    List(u16),
    Map(u16),
    Named(u16),
}

/// How two lists become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListKind {
    #[default]
    Atomic,
    Set,
    Map,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// Empty for an inlined struct.
    pub(crate) name: &'static str,
    pub(crate) kind: Type,
    pub(crate) pointer: bool,
    pub(crate) omit_empty: bool,
    /// `patchStrategy` says merge.
    pub(crate) patch_merge: bool,
    pub(crate) retain_keys: bool,
    pub(crate) merge_key: Option<&'static str>,
    pub(crate) list: ListKind,
    pub(crate) keys: Box<[&'static str]>,
    /// Map or struct that is replaced as a whole.
    pub(crate) atomic: bool,
    pub(crate) default: Option<&'static str>,
}

#[derive(Debug)]
pub(crate) struct Struct {
    /// `core/v1.PodSpec`.
    pub(crate) id: &'static str,
    pub(crate) atomic: bool,
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug)]
struct Package {
    id: &'static str,
    group: &'static str,
    version: &'static str,
    openapi: &'static str,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    packages: Vec<Package>,
    structs: Vec<Struct>,
    named: Vec<(&'static str, Type)>,
    elements: Vec<Type>,
    by_id: HashMap<&'static str, Type>,
}

/// Kinds of `meta.k8s.io` that are spoken under every group.
const EVERYWHERE: &[&str] = &[
    "DeleteOptions",
    "CreateOptions",
    "UpdateOptions",
    "PatchOptions",
    "ListOptions",
    "GetOptions",
    "Status",
];

impl Table {
    fn parse(text: &'static str) -> Self {
        let mut table = Self::default();
        table.name_types(text);
        for line in text.lines() {
            let mut words = line.split(' ');
            let first = words.next().unwrap_or("");
            match first.as_bytes().first() {
                None | Some(b'#') => {}
                Some(b'%') => {
                    let group = words.next().unwrap_or("");
                    table.packages.push(Package {
                        id: &first[1..],
                        group: if group == "-" { "" } else { group },
                        version: first.rsplit('/').next().unwrap_or(""),
                        openapi: words.next().unwrap_or(""),
                    });
                }
                Some(b'~') => {
                    let kind = table.kind_of(words.next().unwrap_or("")).0;
                    if let Some(Type::Named(at)) = table.by_id.get(&first[1..]) {
                        table.named[usize::from(*at)].1 = kind;
                    }
                }
                Some(b'@') => {
                    let atomic = words.next() == Some("atomic");
                    table.structs.push(Struct {
                        id: &first[1..],
                        atomic,
                        fields: Vec::new(),
                    });
                }
                Some(_) => {
                    let field = table.field_of(first, words);
                    if let Some(last) = table.structs.last_mut() {
                        last.fields.push(field);
                    }
                }
            }
        }
        table
    }

    /// First pass: every name gets its place, so that types may refer forward.
    fn name_types(&mut self, text: &'static str) {
        let mut structs = 0u16;
        for line in text.lines() {
            let id = line.split(' ').next().unwrap_or("");
            if let Some(id) = id.strip_prefix('@') {
                self.by_id.insert(id, Type::Struct(structs));
                structs += 1;
            } else if let Some(id) = id.strip_prefix('~') {
                let at = u16::try_from(self.named.len()).expect("the table is far smaller");
                self.named.push((id, Type::Any));
                self.by_id.insert(id, Type::Named(at));
            }
        }
    }

    /// The type of a word, and whether it is a pointer.
    fn kind_of(&mut self, word: &'static str) -> (Type, bool) {
        if let Some(rest) = word.strip_prefix('*') {
            return (self.kind_of(rest).0, true);
        }
        for (prefix, list) in [("[]", true), ("{}", false)] {
            if let Some(rest) = word.strip_prefix(prefix) {
                let element = self.kind_of(rest).0;
                let at = self
                    .elements
                    .iter()
                    .position(|e| *e == element)
                    .unwrap_or_else(|| {
                        self.elements.push(element);
                        self.elements.len() - 1
                    });
                let at = u16::try_from(at).expect("the table is far smaller");
                return (if list { Type::List(at) } else { Type::Map(at) }, false);
            }
        }
        let kind = match word {
            "string" => Type::Text,
            "bool" => Type::Bool,
            "int32" => Type::Int32,
            "int64" => Type::Int64,
            "float64" => Type::Float,
            "bytes" => Type::Bytes,
            "quantity" => Type::Quantity,
            "intstr" => Type::IntOrString,
            "time" => Type::Time,
            "microtime" => Type::MicroTime,
            "duration" => Type::Duration,
            "raw" => Type::Raw,
            "fieldsv1" => Type::FieldsV1,
            name => self.by_id.get(name).copied().unwrap_or(Type::Any),
        };
        (kind, false)
    }

    fn field_of(&mut self, number: &str, mut words: std::str::Split<'static, char>) -> Field {
        let name = words.next().unwrap_or("");
        let (kind, pointer) = self.kind_of(words.next().unwrap_or("any"));
        let mut field = Field {
            number: number.parse().unwrap_or(0),
            name: if name == "<" { "" } else { name },
            kind,
            pointer,
            omit_empty: false,
            patch_merge: false,
            retain_keys: false,
            merge_key: None,
            list: ListKind::Atomic,
            keys: Box::default(),
            atomic: false,
            default: None,
        };
        for mark in words {
            match mark.split_once('=') {
                None => field.omit_empty |= mark == "?",
                Some(("p", strategy)) => {
                    field.patch_merge = strategy.contains("merge");
                    field.retain_keys = strategy.contains("retainKeys");
                }
                Some(("k", key)) => field.merge_key = Some(key),
                Some(("l", "set")) => field.list = ListKind::Set,
                Some(("l", "map")) => field.list = ListKind::Map,
                Some(("lk", keys)) => field.keys = keys.split(',').collect(),
                Some(("m", "atomic")) => field.atomic = true,
                Some(("d", default)) => field.default = Some(default),
                Some(_) => {}
            }
        }
        field
    }

    /// The struct of a kind that clients may send.
    pub(crate) fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Struct> {
        let own = self
            .packages
            .iter()
            .filter(|p| p.group == group && p.version == version);
        let meta = self
            .packages
            .iter()
            .filter(|p| p.id == "meta/v1" && EVERYWHERE.contains(&kind));
        own.chain(meta).find_map(|package| {
            self.named_struct(&format!("{}.{kind}", package.id))
                .filter(|s| self.is_kind(s))
        })
    }

    /// Does the struct carry apiVersion and kind?
    fn is_kind(&self, s: &Struct) -> bool {
        s.fields.iter().any(|f| {
            f.name.is_empty()
                && self
                    .structure(f.kind)
                    .is_some_and(|s| s.id == "meta/v1.TypeMeta")
        })
    }

    /// A struct by its name in the table.
    pub(crate) fn named_struct(&self, id: &str) -> Option<&Struct> {
        self.by_id.get(id).and_then(|kind| self.structure(*kind))
    }

    /// A struct by its name in OpenAPI.
    pub(crate) fn openapi_struct(&self, name: &str) -> Option<&Struct> {
        let (prefix, name) = name.rsplit_once('.')?;
        let package = self.packages.iter().find(|p| p.openapi == prefix)?;
        self.named_struct(&format!("{}.{name}", package.id))
    }

    /// The name of a struct in OpenAPI.
    pub(crate) fn openapi_name(&self, of: &Struct) -> String {
        let (id, name) = of.id.rsplit_once('.').unwrap_or(("", of.id));
        let prefix = self
            .packages
            .iter()
            .find(|p| p.id == id)
            .map_or(id, |p| p.openapi);
        format!("{prefix}.{name}")
    }

    /// The struct behind a type, if it is one.
    pub(crate) fn structure(&self, kind: Type) -> Option<&Struct> {
        match kind {
            Type::Struct(at) => self.structs.get(usize::from(at)),
            _ => None,
        }
    }

    /// The type behind a name.
    pub(crate) fn plain(&self, kind: Type) -> Type {
        match kind {
            Type::Named(at) => self.named[usize::from(at)].1,
            other => other,
        }
    }

    /// What a list or map holds.
    pub(crate) fn element(&self, at: u16) -> Type {
        self.elements[usize::from(at)]
    }

    /// A field by its JSON name, in the struct or in what it inlines.
    pub(crate) fn field<'a>(&'a self, of: &'a Struct, name: &str) -> Option<&'a Field> {
        of.fields.iter().find_map(|field| {
            if field.name.is_empty() {
                self.structure(field.kind)
                    .and_then(|inlined| self.field(inlined, name))
            } else {
                (field.name == name).then_some(field)
            }
        })
    }

    /// Calls back for each field as JSON shows them: inlined structs in place.
    pub(crate) fn each_field<'a>(&'a self, of: &'a Struct, visit: &mut impl FnMut(&'a Field)) {
        for field in &of.fields {
            match self.structure(field.kind) {
                Some(inlined) if field.name.is_empty() => self.each_field(inlined, visit),
                _ => visit(field),
            }
        }
    }

    /// As Go prints the type: `[]v1.Container`, `int32`.
    pub(crate) fn go_name(&self, kind: Type) -> String {
        match kind {
            Type::Text => "string".to_owned(),
            Type::Bool => "bool".to_owned(),
            Type::Int32 => "int32".to_owned(),
            Type::Int64 => "int64".to_owned(),
            Type::Float => "float64".to_owned(),
            Type::Bytes => "[]uint8".to_owned(),
            Type::Quantity => "resource.Quantity".to_owned(),
            Type::IntOrString => "intstr.IntOrString".to_owned(),
            Type::Time => "v1.Time".to_owned(),
            Type::MicroTime => "v1.MicroTime".to_owned(),
            Type::Duration => "v1.Duration".to_owned(),
            Type::Raw => "runtime.RawExtension".to_owned(),
            Type::FieldsV1 => "v1.FieldsV1".to_owned(),
            Type::Any => "interface {}".to_owned(),
            Type::Struct(at) => short(self.structs[usize::from(at)].id),
            Type::Named(at) => short(self.named[usize::from(at)].0),
            Type::List(at) => format!("[]{}", self.go_name(self.element(at))),
            Type::Map(at) => format!("map[string]{}", self.go_name(self.element(at))),
        }
    }
}

/// `core/v1.PodSpec` → `v1.PodSpec`.
fn short(id: &str) -> String {
    id.rsplit('/').next().unwrap_or(id).to_owned()
}

impl Struct {
    /// `PodSpec`.
    pub(crate) fn name(&self) -> &'static str {
        self.id.rsplit('.').next().unwrap_or(self.id)
    }
}

impl Field {
    /// The default, if the Go type declares a plain one.
    pub(crate) fn default_value(&self) -> Option<Value> {
        self.default
            .and_then(|text| serde_json::from_str(text).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_resolves_and_every_kind_is_found() {
        let table = table();
        let pod = table.kind("", "v1", "Pod").unwrap();
        let spec = table
            .structure(table.field(pod, "spec").unwrap().kind)
            .unwrap();
        assert_eq!(spec.id, "core/v1.PodSpec");
        let containers = table.field(spec, "containers").unwrap();
        assert_eq!(table.go_name(containers.kind), "[]v1.Container");
        assert!(
            containers.patch_merge
                && containers.merge_key == Some("name")
                && containers.list == ListKind::Map
        );
        assert!(table.kind("apps", "v1", "Deployment").is_some());
        assert!(table.kind("apps", "v1", "DeleteOptions").is_some());
        assert!(table.kind("", "v1", "PodSpec").is_none());
        assert!(table.kind("serving.knative.dev", "v1", "Service").is_none());
        assert!(
            table
                .openapi_struct("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
                .is_some()
        );
    }

    #[test]
    fn inlined_fields_are_found() {
        let table = table();
        let probe = table.named_struct("core/v1.Probe").unwrap();
        assert!(table.field(probe, "httpGet").is_some());
        let mut names = Vec::new();
        table.each_field(probe, &mut |f| names.push(f.name));
        assert!(names.contains(&"exec") && names.contains(&"periodSeconds"));
    }
}
