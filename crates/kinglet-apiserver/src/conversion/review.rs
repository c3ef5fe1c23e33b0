//! `ConversionReview`: what is asked, and what an answer must be like. Pure.

use serde_json::{Map, Value, json};

use crate::names;
use crate::object::{self, text};
use crate::status::Cause;

/// Objects in one review: few calls for a list, and none that takes a webhook much of its 30 s.
const OBJECTS_MAX: usize = 500;
/// Bytes of objects in one review; a single larger one goes alone. Objects are at most 3 MiB.
const BYTES_MAX: usize = 2 << 20;
/// Versions of reviews that we speak, in their own group.
pub(crate) const SPOKEN: [&str; 2] = ["v1", "v1beta1"];

/// `example.com/v1, Kind=Bird`, as Go prints a kind.
pub(crate) fn kind_of(object: &Value) -> String {
    format!(
        "{}, Kind={}",
        text(object, &["apiVersion"]),
        text(object, &["kind"])
    )
}

/// Cuts objects into reviews.
pub(super) fn batches<T>(all: &[T], size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, each) in all.iter().enumerate() {
        let more = size(each);
        if at > start && (at - start == OBJECTS_MAX || bytes + more > BYTES_MAX) {
            batches.push(&all[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += more;
    }
    if start < all.len() {
        batches.push(&all[start..]);
    }
    batches
}

/// One question to a webhook.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// Version of the review itself.
    pub(super) review: &'a str,
    pub(super) uid: &'a str,
    pub(super) objects: &'a [Value],
    /// The `apiVersion` wanted.
    pub(super) version: &'a str,
}

impl Question<'_> {
    fn api_version(&self) -> String {
        format!("apiextensions.k8s.io/{}", self.review)
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "kind": "ConversionReview", "apiVersion": self.api_version(),
            "request": {"uid": self.uid, "desiredAPIVersion": self.version, "objects": self.objects},
        })
    }

    fn subject(&self) -> String {
        self.objects.first().map(kind_of).unwrap_or_default()
    }

    /// The converted objects of an answer, with the metadata of those that were sent; or the sentence of the refusal.
    pub(super) fn converted(&self, answer: &[u8]) -> Result<Vec<Value>, String> {
        let subject = self.subject();
        let found = self
            .objects_of(answer)
            .map_err(|detail| format!("conversion webhook for {subject} failed: {detail}"))?;
        if found.len() != self.objects.len() {
            return Err(format!(
                "conversion webhook for {subject} returned {} objects, expected {}",
                found.len(),
                self.objects.len()
            ));
        }
        let mut converted = Vec::with_capacity(found.len());
        for (index, (object, sent)) in found.into_iter().zip(self.objects).enumerate() {
            let object = self.checked(object, sent, index).map_err(|wrong| {
                format!("conversion webhook for {subject} returned invalid {wrong}")
            })?;
            converted.push(object);
        }
        Ok(converted)
    }

    fn objects_of(&self, answer: &[u8]) -> Result<Vec<Value>, String> {
        let mut review: Value = serde_json::from_slice(answer)
            .map_err(|error| format!("the answer is no ConversionReview: {error}"))?;
        let expected = self.api_version();
        // Reviews of v1beta1 are not looked at that closely, as in Kubernetes.
        let strict = self.review == "v1";
        if strict
            && (text(&review, &["apiVersion"]) != expected
                || text(&review, &["kind"]) != "ConversionReview")
        {
            return Err(format!(
                "expected webhook response of {expected}, Kind=ConversionReview, got {}",
                kind_of(&review)
            ));
        }
        let Some(response) = review
            .get_mut("response")
            .filter(|response| response.is_object())
        else {
            return Err("no response provided".to_owned());
        };
        let uid = text(response, &["uid"]);
        if strict && uid != self.uid {
            return Err(format!("expected response.uid={:?}, got {uid:?}", self.uid));
        }
        match (
            text(response, &["result", "status"]),
            text(response, &["result", "message"]),
        ) {
            ("Success", _) => {}
            (status, "") => {
                return Err(format!(
                    "response.result.status was '{status}', not 'Success'"
                ));
            }
            (_, message) => return Err(message.to_owned()),
        }
        match response.get_mut("convertedObjects").map(Value::take) {
            Some(Value::Array(objects)) => Ok(objects),
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(_) => Err("response.convertedObjects is not a list".to_owned()),
        }
    }

    /// The object with the metadata that may not change put back.
    fn checked(&self, mut object: Value, sent: &Value, index: usize) -> Result<Value, String> {
        let alone = self.objects.len() == 1;
        let place = if alone {
            format!("object at index {index}")
        } else {
            format!("converted object at index {}", index + 1)
        };
        let (got, kind) = (text(&object, &["apiVersion"]), text(&object, &["kind"]));
        if got != self.version {
            return Err(format!(
                "{place}: invalid groupVersion (expected {}, received {got})",
                self.version
            ));
        }
        let wanted = text(sent, &["kind"]);
        if kind != wanted {
            return Err(format!(
                "{place}: invalid kind (expected {wanted}, received {kind})"
            ));
        }
        let place = if alone { "object".to_owned() } else { place };
        for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
            let (before, after) = (
                text(sent, &["metadata", field]),
                text(&object, &["metadata", field]),
            );
            if before != after {
                return Err(format!(
                    "{place}: must have the same {name}: {before} != {after}"
                ));
            }
        }
        let metadata = metadata(sent, &object).map_err(|wrong| {
            if alone {
                format!("metadata: {wrong}")
            } else {
                format!("metadata in object at index {}: {wrong}", index + 1)
            }
        })?;
        object::fields(&mut object).insert("metadata".to_owned(), Value::Object(metadata));
        Ok(object)
    }
}

/// The metadata of the object that was sent, with the labels and annotations of the answer.
fn metadata(sent: &Value, answer: &Value) -> Result<Map<String, Value>, String> {
    let Some(given) = answer.get("metadata") else {
        return Err("missing metadata in converted object".to_owned());
    };
    let Some(given) = given.as_object() else {
        return Err("metadata is no object in converted object".to_owned());
    };
    let mut metadata = sent
        .get("metadata")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    for field in ["labels", "annotations"] {
        let Some(value) = given.get(field).filter(|value| !value.is_null()) else {
            metadata.remove(field);
            continue;
        };
        let Some(fields) = value.as_object() else {
            return Err(format!("metadata.{field} is no object in converted object"));
        };
        if let Some(key) = fields
            .iter()
            .find_map(|(key, value)| (!value.is_string()).then_some(key))
        {
            return Err(format!(
                "metadata.{field}[{key}] must be a string in converted object"
            ));
        }
        if metadata.get(field) != Some(value) {
            let mut causes: Vec<Cause> = Vec::new();
            if field == "labels" {
                names::check_labels(Some(value), "metadata.labels", &mut causes);
            } else {
                names::check_annotations(Some(value), "metadata.annotations", &mut causes);
            }
            if let Some(cause) = causes.first() {
                return Err(format!("{}: {}", cause.field, cause.message));
            }
        }
        metadata.insert(field.to_owned(), value.clone());
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bird(name: &str, version: &str) -> Value {
        json!({"apiVersion": format!("example.com/{version}"), "kind": "Bird",
            "metadata": {"name": name, "namespace": "d", "uid": "u", "generation": 3, "labels": {"a": "b"}}})
    }

    fn answer(objects: &Value) -> Value {
        json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "response": {"uid": "1", "result": {"status": "Success"}, "convertedObjects": objects}})
    }

    fn judged(answer: &Value, sent: &[Value]) -> Result<Vec<Value>, String> {
        let question = Question {
            review: "v1",
            uid: "1",
            objects: sent,
            version: "example.com/v2",
        };
        question.converted(answer.to_string().as_bytes())
    }

    #[test]
    fn only_labels_and_annotations_may_change() {
        let sent = [bird("wren", "v1")];
        let mut changed = bird("wren", "v2");
        changed["metadata"]["generation"] = 9.into();
        changed["metadata"]["finalizers"] = json!(["x"]);
        changed["metadata"]["labels"] = json!({"c": "d"});
        changed["metadata"]["annotations"] = json!({"e": "f"});
        let got = judged(&answer(&json!([changed])), &sent).unwrap().remove(0);
        assert_eq!(
            got["metadata"],
            json!({"name": "wren", "namespace": "d", "uid": "u", "generation": 3, "labels": {"c": "d"}, "annotations": {"e": "f"}})
        );
    }

    #[test]
    fn wrong_answers_are_refused_in_the_words_of_kubernetes() {
        let sent = [bird("wren", "v1")];
        let good = bird("wren", "v2");
        let with = |change: &dyn Fn(&mut Value)| {
            let mut object = good.clone();
            change(&mut object);
            answer(&json!([object]))
        };
        let review = |change: &dyn Fn(&mut Value)| {
            let mut review = answer(&json!([good]));
            change(&mut review);
            review
        };
        let failed = "conversion webhook for example.com/v1, Kind=Bird";
        for (answer, wanted) in [
            (answer(&json!([])), "returned 0 objects, expected 1"),
            (
                answer(&json!([good, good])),
                "returned 2 objects, expected 1",
            ),
            (
                answer(&json!([bird("wren", "v1")])),
                "returned invalid object at index 0: invalid groupVersion (expected example.com/v2, received example.com/v1)",
            ),
            (
                with(&|o| o["kind"] = "Nest".into()),
                "returned invalid object at index 0: invalid kind (expected Bird, received Nest)",
            ),
            (
                with(&|o| o["metadata"]["name"] = "x".into()),
                "returned invalid object: must have the same name: wren != x",
            ),
            (
                with(&|o| o["metadata"]["namespace"] = "x".into()),
                "returned invalid object: must have the same namespace: d != x",
            ),
            (
                with(&|o| o["metadata"]["uid"] = "x".into()),
                "returned invalid object: must have the same UID: u != x",
            ),
            (
                with(&|o| o["metadata"]["labels"] = json!({"a": 1})),
                "returned invalid metadata: metadata.labels[a] must be a string in converted object",
            ),
            (
                review(&|r| r["response"]["uid"] = "2".into()),
                "failed: expected response.uid=\"1\", got \"2\"",
            ),
            (
                review(&|r| r["response"] = Value::Null),
                "failed: no response provided",
            ),
            (
                review(&|r| {
                    r["response"]["result"] = json!({"status": "Failed", "message": "no nests"})
                }),
                "failed: no nests",
            ),
            (
                review(&|r| r["response"]["result"] = json!({})),
                "failed: response.result.status was '', not 'Success'",
            ),
            (
                review(&|r| r["apiVersion"] = "v9".into()),
                "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got v9, Kind=ConversionReview",
            ),
        ] {
            assert_eq!(
                judged(&answer, &sent).unwrap_err(),
                format!("{failed} {wanted}")
            );
        }
        assert!(judged(&Value::from("x"), &sent).is_err());
    }

    #[test]
    fn lists_are_cut_by_number_and_size() {
        let sizes = |all: &[usize]| -> Vec<usize> {
            batches(all, |size| *size)
                .iter()
                .map(|batch| batch.len())
                .collect()
        };
        assert_eq!(sizes(&[]), Vec::<usize>::new());
        assert_eq!(sizes(&[3 << 20, 1, 1]), [1, 2]);
        assert_eq!(sizes(&[1 << 20, 1 << 20, 1]), [2, 1]);
        assert_eq!(sizes(&vec![1; 1001]), [500, 500, 1]);
    }
}
