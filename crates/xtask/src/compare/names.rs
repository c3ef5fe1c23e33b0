//! Names with random parts, which differ from run to run: both sides get the same words in their place.

use serde_json::Value;

/// The random part of a name and what stands for it.
pub(super) fn word(kind: &str, name: &str) -> Option<(String, String)> {
    let with = match kind {
        "ReplicaSet" => "HASH",
        "Pod" => "POD",
        "EndpointSlice" => "SLICE",
        _ => return None,
    };
    name.rsplit_once('-')
        .map(|(_, suffix)| (suffix.to_owned(), with.to_owned()))
}

/// Puts words in the place of random parts, wherever they are in a document.
pub(super) fn replace(value: &mut Value, words: &[(String, String)]) {
    match value {
        Value::String(text) => {
            for (word, with) in words {
                let whole = |end: &str| text.contains(&format!("-{word}{end}"));
                if text == word
                    || text.ends_with(&format!("-{word}"))
                    || ["-", "\"", " ", ":"].into_iter().any(whole)
                {
                    *text = text.replace(word.as_str(), with);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, words)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, words)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
