//! The shapes of specs: reads a JSON spec the way Go's decoder would and writes it back the way its encoder would.
//!
//! Upstream's webhook decodes an object into Go structs and sends back what they encode to. So a wrong type is
//! refused in the decoder's words, unknown fields vanish, empty ones are left out, quantities become canonical.
//! The catalogue of structs is text ([`catalogue`]), parsed once.

mod catalogue;
mod eventing;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use kinglet_quantity::Quantity;

/// How a struct's field is typed.
#[derive(Clone, Debug, PartialEq)]
enum Type {
    String,
    Bool,
    Int(u32),
    Quantity,
    IntOrString,
    /// Kept as it is.
    Any,
    List(Box<Type>),
    Map(Box<Type>),
    Struct(&'static str),
}

/// Fields of every object's metadata that mean nothing in a template; tools write them as null.
const TIMESTAMPS: [&str; 2] = ["creationTimestamp", "deletionTimestamp"];

#[derive(Debug)]
struct Field {
    name: &'static str,
    kind: Type,
    /// A pointer: its zero value is kept, `null` is absence.
    pointer: bool,
    /// Written even if empty.
    always: bool,
}

#[derive(Debug)]
enum Member {
    Field(Field),
    /// Fields of another struct, inlined.
    Embedded(&'static str),
}

static STRUCTS: LazyLock<HashMap<&'static str, Vec<Member>>> = LazyLock::new(|| {
    catalogue::STRUCTS
        .lines()
        .chain(eventing::STRUCTS.lines())
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let (name, members) = line
                .split_once(':')
                .expect("every line of the catalogue is `Name: members`");
            (
                name.trim(),
                members
                    .split(',')
                    .map(str::trim)
                    .filter(|member| !member.is_empty())
                    .map(member)
                    .collect(),
            )
        })
        .collect()
});

fn member(text: &'static str) -> Member {
    if let Some(embedded) = text.strip_prefix('+') {
        return Member::Embedded(embedded);
    }
    let (name, kind) = text
        .split_once(' ')
        .expect("every member of the catalogue is `name Type`");
    let (name, always) = match name.strip_suffix('!') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let (kind, pointer) = match kind.strip_prefix('*') {
        Some(kind) => (kind, true),
        None => (kind, false),
    };
    Member::Field(Field {
        name,
        kind: parse_type(kind),
        pointer,
        always,
    })
}

fn parse_type(text: &'static str) -> Type {
    if let Some(element) = text.strip_prefix("[]") {
        return Type::List(Box::new(parse_type(element)));
    }
    if let Some(element) = text.strip_prefix("map ") {
        return Type::Map(Box::new(parse_type(element)));
    }
    match text {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int32" => Type::Int(32),
        "int64" => Type::Int(64),
        "quantity" => Type::Quantity,
        "intstr" => Type::IntOrString,
        "any" => Type::Any,
        name => Type::Struct(name),
    }
}

/// Rewrites `spec` as the named struct would encode it. The error is the decoder's.
pub(crate) fn normalize(spec: &Value, shape: &'static str) -> Result<Value, String> {
    Reader {
        path: vec!["spec"],
        strict: false,
    }
    .structure(spec, shape, shape)
}

/// The same, but a field that the struct does not have is an error: what an API server left in because the schema keeps it.
pub(crate) fn normalize_strictly(spec: &Value, shape: &'static str) -> Result<Value, String> {
    Reader {
        path: vec!["spec"],
        strict: true,
    }
    .structure(spec, shape, shape)
}

/// Names of the fields of a struct, embedded ones included, in their order.
pub(crate) fn field_names(shape: &str) -> Vec<&'static str> {
    STRUCTS[shape]
        .iter()
        .flat_map(|member| match member {
            Member::Field(field) => vec![field.name],
            Member::Embedded(inner) => field_names(inner),
        })
        .collect()
}

/// Fields that only one of a struct and a schema has, by path; where the schema keeps what it does not know, nothing more is
/// compared.
#[cfg(test)]
pub(crate) fn differences(shape: &str, schema: &Value) -> Vec<String> {
    let Some(properties) = schema["properties"].as_object() else {
        return Vec::new();
    };
    let fields = fields(shape);
    let mut found: Vec<String> = properties
        .keys()
        .filter(|name| !fields.iter().any(|field| field.name == name.as_str()))
        .map(|name| format!("{name}: only the schema"))
        .collect();
    for field in fields {
        let Some(inner) = properties.get(field.name) else {
            found.push(format!("{}: only the struct", field.name));
            continue;
        };
        let (kind, schema) = match &field.kind {
            Type::List(element) => (element.as_ref(), &inner["items"]),
            kind => (kind, inner),
        };
        if let Type::Struct(shape) = kind {
            let below = differences(shape, schema);
            found.extend(below.iter().map(|path| format!("{}.{path}", field.name)));
        }
    }
    found
}

#[cfg(test)]
fn fields(shape: &str) -> Vec<&'static Field> {
    STRUCTS[shape]
        .iter()
        .flat_map(|member| match member {
            Member::Field(field) => vec![field],
            Member::Embedded(inner) => fields(inner),
        })
        .collect()
}

/// A decoder on its way down.
struct Reader {
    path: Vec<&'static str>,
    /// Unknown fields are errors.
    strict: bool,
}

impl Reader {
    /// Reads a JSON object as a struct. `holder` is the Go struct named in errors of this value itself.
    fn structure(
        &mut self,
        value: &Value,
        shape: &'static str,
        holder: &'static str,
    ) -> Result<Value, String> {
        let empty = Map::new();
        let from = match value {
            Value::Null => &empty,
            Value::Object(map) => map,
            other => return Err(self.mismatch(other, holder, &go_name(&Type::Struct(shape)))),
        };
        if self.strict {
            let known = field_names(shape);
            let tolerated: &[&str] = if shape == "ObjectMeta" {
                &TIMESTAMPS
            } else {
                &[]
            };
            let unknown = from
                .keys()
                .map(String::as_str)
                .find(|key| !known.contains(key) && !tolerated.contains(key));
            if let Some(unknown) = unknown {
                return Err(format!("json: unknown field {}", crate::go::quote(unknown)));
            }
        }
        let mut into = Map::new();
        self.members(from, shape, &mut into)?;
        Ok(Value::Object(into))
    }

    fn members(
        &mut self,
        from: &Map<String, Value>,
        shape: &'static str,
        into: &mut Map<String, Value>,
    ) -> Result<(), String> {
        let members = STRUCTS
            .get(shape)
            .unwrap_or_else(|| panic!("the catalogue has no struct {shape}"));
        for member in members {
            match member {
                Member::Embedded(inner) => {
                    self.path.push(inner);
                    self.members(from, inner, into)?;
                    self.path.pop();
                }
                Member::Field(field) => {
                    self.path.push(field.name);
                    if let Some(value) = self.field(from.get(field.name), field, shape)? {
                        into.insert(field.name.to_owned(), value);
                    }
                    self.path.pop();
                }
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        value: Option<&Value>,
        field: &Field,
        holder: &'static str,
    ) -> Result<Option<Value>, String> {
        let value = value.unwrap_or(&Value::Null);
        if value.is_null() && field.pointer {
            return Ok(None);
        }
        let read = self.value(value, &field.kind, holder)?;
        let keep = field.pointer
            || field.always
            || matches!(field.kind, Type::Struct(_))
            || !is_empty(&read);
        Ok(keep.then_some(read))
    }

    fn value(&mut self, value: &Value, kind: &Type, holder: &'static str) -> Result<Value, String> {
        match (kind, value) {
            (Type::Any, value) => Ok(value.clone()),
            (Type::Struct(shape), value) => self.structure(value, shape, holder),
            (Type::String, Value::Null) => Ok(Value::String(String::new())),
            (Type::Bool, Value::Null) => Ok(Value::Bool(false)),
            (Type::Int(_) | Type::IntOrString, Value::Null) => Ok(Value::from(0)),
            (Type::Quantity, Value::Null) => Ok(Value::String("0".to_owned())),
            (Type::List(_) | Type::Map(_), Value::Null) => Ok(Value::Null),
            (Type::String, Value::String(_))
            | (Type::Bool, Value::Bool(_))
            | (Type::IntOrString, Value::String(_)) => Ok(value.clone()),
            (Type::Int(bits), Value::Number(number)) => match number.as_i64() {
                Some(n) if *bits == 64 || i32::try_from(n).is_ok() => Ok(Value::from(n)),
                _ => Err(self.mismatch(value, holder, &go_name(kind))),
            },
            (Type::IntOrString, Value::Number(number)) => {
                match number.as_i64().map(i32::try_from) {
                    Some(Ok(n)) => Ok(Value::from(n)),
                    _ => Err(format!(
                        "json: cannot unmarshal number {number} into Go value of type int32"
                    )),
                }
            }
            (Type::Quantity, Value::String(text)) => canonical(text),
            (Type::Quantity, Value::Number(number)) => canonical(&number.to_string()),
            (Type::Quantity, _) => Err(kinglet_quantity::NOT_A_QUANTITY.to_owned()),
            (Type::List(element), Value::Array(items)) => items
                .iter()
                .map(|item| self.value(item, element, holder))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            (Type::Map(element), Value::Object(map)) => map
                .iter()
                .map(|(key, item)| Ok((key.clone(), self.value(item, element, holder)?)))
                .collect::<Result<Map<_, _>, String>>()
                .map(Value::Object),
            (_, value) => Err(self.mismatch(value, holder, &go_name(kind))),
        }
    }

    fn mismatch(&self, value: &Value, holder: &str, want: &str) -> String {
        let got = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if want.starts_with("int") => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        format!(
            "json: cannot unmarshal {got} into Go struct field {holder}.{} of type {want}",
            self.path.join(".")
        )
    }
}

fn canonical(text: &str) -> Result<Value, String> {
    Quantity::parse(text.trim())
        .map(|quantity| Value::String(quantity.to_string()))
        .map_err(str::to_owned)
}

fn go_name(kind: &Type) -> String {
    match kind {
        Type::String => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int(bits) => format!("int{bits}"),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Any => "interface {}".to_owned(),
        Type::List(element) => format!("[]{}", go_name(element)),
        Type::Map(element) => format!("map[string]{}", go_name(element)),
        Type::Struct(name) => format!("v1.{name}"),
    }
}

/// What Go's `omitempty` leaves out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_struct_of_the_catalogue_is_known() {
        fn check(kind: &Type) {
            match kind {
                Type::List(inner) | Type::Map(inner) => check(inner),
                Type::Struct(name) => assert!(STRUCTS.contains_key(name), "{name}"),
                _ => {}
            }
        }
        for member in STRUCTS.values().flatten() {
            match member {
                Member::Field(field) => check(&field.kind),
                Member::Embedded(name) => assert!(STRUCTS.contains_key(name), "{name}"),
            }
        }
        assert!(field_names("Container").contains(&"image"));
    }

    #[test]
    fn empties_go_and_what_go_always_writes_comes() {
        let spec = json!({"template": {"spec": {"containers": [{
            "image": "ab", "env": [], "bogus": 1, "resources": {"limits": {"cpu": "1000m"}},
            "livenessProbe": {"periodSeconds": 0, "httpGet": {"path": "x"}},
            "securityContext": {"runAsNonRoot": false},
        }]}}, "traffic": null});
        assert_eq!(
            normalize(&spec, "ServiceSpec").unwrap(),
            json!({"template": {"metadata": {}, "spec": {"containers": [{
                "name": "", "image": "ab", "resources": {"limits": {"cpu": "1"}},
                "livenessProbe": {"httpGet": {"path": "x", "port": 0}},
                "securityContext": {"runAsNonRoot": false},
            }]}}})
        );
        assert_eq!(
            normalize(&json!({"template": {}}), "ServiceSpec").unwrap(),
            json!({"template": {"metadata": {}, "spec": {"containers": null}}})
        );
    }

    #[test]
    fn wrong_types_are_refused_in_the_decoders_words() {
        let container =
            |container: Value| json!({"template": {"spec": {"containers": [container]}}});
        for (spec, want) in [
            (
                container(json!({"env": [{"name": "A", "value": 1}]})),
                "json: cannot unmarshal number into Go struct field EnvVar.spec.ConfigurationSpec.template.spec.PodSpec.containers.env.value of type string",
            ),
            (
                json!({"traffic": [{"percent": 99.5}]}),
                "json: cannot unmarshal number 99.5 into Go struct field TrafficTarget.spec.RouteSpec.traffic.percent of type int64",
            ),
            (
                json!({"template": {"spec": {"timeoutSeconds": "a"}}}),
                "json: cannot unmarshal string into Go struct field RevisionSpec.spec.ConfigurationSpec.template.spec.timeoutSeconds of type int64",
            ),
            (
                container(json!({"resources": {"requests": {"cpu": "abc"}}})),
                kinglet_quantity::NOT_A_QUANTITY,
            ),
        ] {
            assert_eq!(normalize(&spec, "ServiceSpec").unwrap_err(), want);
        }
    }
}
