//! Kinds that are questions: reviews of tokens and rights.

use serde_json::{Value, json};

use crate::auth::{rights, tokens};
use crate::body::{Answer, json as answer};
use crate::decode;
use crate::dispatch::Call;
use crate::identity::Identity;
use crate::kinds::Builtin;
use crate::object::{self, text};
use crate::path::Place;
use crate::status::Status;

pub(crate) fn create(call: &mut Call<'_>) -> Result<Answer, Status> {
    let mut object = decode::value(call)?;
    decode::check_kind(call, &mut object)?;
    let status = match call.kind.builtin {
        Some(Builtin::TokenReview) => token(call, text(&object, &["spec", "token"])),
        Some(Builtin::SelfSubjectReview) => json!({"userInfo": user(call.who)}),
        Some(Builtin::SelfSubjectRulesReview) => {
            rights::rules(call.core, call.who, text(&object, &["spec", "namespace"]))
        }
        Some(Builtin::SubjectAccessReview) => {
            let groups = object::items(&object, &["spec", "groups"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            let mut subject = Identity::remote(text(&object, &["spec", "user"]), Vec::new());
            subject.groups = groups;
            access(call, &subject, &object)
        }
        _ => access(call, call.who, &object),
    };
    object::fields(&mut object).insert("status".to_owned(), status);
    object::meta(&mut object);
    Ok(answer(201, &object))
}

fn user(who: &Identity) -> Value {
    let mut user = json!({"username": who.name, "groups": who.groups});
    if !who.uid.is_empty() {
        user["uid"] = who.uid.clone().into();
    }
    user
}

fn token(call: &Call<'_>, token: &str) -> Value {
    match tokens::authenticate(call.core, token) {
        Some(who) => {
            json!({"authenticated": true, "user": user(&who), "audiences": [tokens::AUDIENCE]})
        }
        None => json!({"user": {}, "error": "invalid bearer token"}),
    }
}

fn access(call: &Call<'_>, subject: &Identity, object: &Value) -> Value {
    let attributes = &object["spec"]["resourceAttributes"];
    let allowed = if attributes.is_object() {
        let field = |name: &str| text(attributes, &[name]).to_owned();
        let place = Place {
            group: field("group"),
            version: field("version"),
            resource: field("resource"),
            namespace: field("namespace"),
            name: field("name"),
            subresource: field("subresource"),
            ..Place::default()
        };
        rights::allows(call.core, subject, text(attributes, &["verb"]), &place)
    } else {
        let path = &object["spec"]["nonResourceAttributes"];
        rights::allows_path(
            call.core,
            subject,
            text(path, &["path"]),
            text(path, &["verb"]),
        )
    };
    json!({"allowed": allowed})
}
