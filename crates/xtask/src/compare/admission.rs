//! Inputs with a recorded verdict, sent with `dryRun=All`.

use std::path::Path;

use anyhow::Context as _;
use kinglet_testkit::Api;
use serde_json::{Value, json};

use super::differ::diff;
use super::documents;

/// Kinds that are served now; the others belong to later parts.
const KINDS: [(&str, &str); 8] = [
    ("Service", "services"),
    ("Route", "routes"),
    ("Configuration", "configurations"),
    ("Revision", "revisions"),
    ("PodAutoscaler", "podautoscalers"),
    ("ServerlessService", "serverlessservices"),
    ("Ingress", "ingresses"),
    ("Metric", "metrics"),
];

/// True when at least nine in ten verdicts are the recorded ones.
pub(crate) async fn replay(api: &Api, file: &Path, objects: bool, most: usize) -> anyhow::Result<bool> {
    let parsed = documents(&std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?)?;
    let cases = parsed.first().and_then(Value::as_array).context("the file is a list of cases")?;
    let (mut total, mut verdict, mut message, mut messages, mut stored, mut storeds, mut skipped) = (0_u32, 0_u32, 0_u32, 0_u32, 0_u32, 0_u32, 0_u32);
    let mut shown = 0;
    for case in cases {
        let Some(outcome) = (if objects { create(api, case).await } else { configure(api, case).await }) else {
            skipped += 1;
            continue;
        };
        total += 1;
        let id = case["id"].as_str().unwrap_or_default();
        let accepted = case["accepted"] == true;
        let mut differences = Vec::new();
        match (&outcome, accepted) {
            (Ok(object), true) => {
                verdict += 1;
                if objects {
                    storeds += 1;
                    let mut found = Vec::new();
                    diff("", &case["stored"], &excerpt(object), &mut found);
                    found.retain(|difference| !["/creator", "/lastModifier"].iter().any(|end| difference.path.ends_with(end)));
                    stored += u32::from(found.is_empty());
                    differences.extend(found.iter().map(|difference| format!("stored {difference}")));
                }
            }
            (Err(said), false) => {
                verdict += 1;
                messages += 1;
                let wanted = case["message"].as_str().unwrap_or_default();
                if said == wanted {
                    message += 1;
                } else {
                    differences.push(format!("message\n        expected {wanted}\n        got      {said}"));
                }
            }
            (Ok(_), false) => differences.push(format!("accepted, expected: {}", case["message"].as_str().unwrap_or_default())),
            (Err(said), true) => differences.push(format!("refused: {said}")),
        }
        for difference in differences {
            shown += 1;
            if shown <= most {
                println!("   {id}: {difference}");
            }
        }
    }
    println!("\n== {}: {verdict} of {total} verdicts, {message} of {messages} messages, {stored} of {storeds} stored forms are the recorded ones ({skipped} of kinds not served)", file.file_name().unwrap_or_default().to_string_lossy());
    Ok(verdict * 10 >= total * 9)
}

/// What the recording keeps of a stored object.
fn excerpt(object: &Value) -> Value {
    let metadata = ["annotations", "labels"].into_iter().map(|field| (field, &object["metadata"][field]));
    metadata.chain([("spec", &object["spec"])]).filter(|(_, value)| !value.is_null()).map(|(field, value)| (field.to_owned(), value.clone())).collect()
}

async fn create(api: &Api, case: &Value) -> Option<Result<Value, String>> {
    let input = &case["input"];
    let kind = input["kind"].as_str()?;
    let (_, plural) = KINDS.iter().find(|(known, _)| *known == kind)?;
    let path = format!("/apis/{}/namespaces/default/{plural}?dryRun=All&fieldValidation=Strict", input["apiVersion"].as_str()?);
    Some(api.call(http::Method::POST, &path, "application/json", input).await.map_err(said))
}

async fn configure(api: &Api, case: &Value) -> Option<Result<Value, String>> {
    let path = format!("/api/v1/namespaces/knative-serving/configmaps/{}?dryRun=All", case["configMap"].as_str()?);
    let present = api.find(&path).await.ok()??;
    let mut changed = present;
    changed["data"][case["key"].as_str()?] = json!(case["value"].as_str().map_or_else(|| case["value"].to_string(), str::to_owned));
    Some(api.call(http::Method::PUT, &path, "application/json", &changed).await.map_err(said))
}

fn said(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
