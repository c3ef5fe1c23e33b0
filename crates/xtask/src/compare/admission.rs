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

/// What came back: status code, warnings, the object or the Status.
struct Outcome {
    code: u16,
    warnings: Vec<String>,
    body: Value,
}

/// Cases by what was compared: how many, how many the same.
#[derive(Default)]
struct Tally {
    verdicts: [u32; 2],
    messages: [u32; 2],
    stored: [u32; 2],
    warnings: [u32; 2],
    skipped: u32,
}

fn count(of: &mut [u32; 2], same: bool) {
    of[0] += 1;
    of[1] += u32::from(same);
}

/// True when at least nine in ten verdicts are the recorded ones.
pub(crate) async fn replay(
    api: &Api,
    file: &Path,
    objects: bool,
    most: usize,
) -> anyhow::Result<bool> {
    let parsed = documents(
        &std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?,
    )?;
    let cases = parsed
        .first()
        .and_then(Value::as_array)
        .context("the file is a list of cases")?;
    let mut tally = Tally::default();
    let mut shown = 0;
    println!(
        "\n== {}",
        file.file_name().unwrap_or_default().to_string_lossy()
    );
    for case in cases {
        let Some(outcome) = (if objects {
            create(api, case).await?
        } else {
            configure(api, case).await?
        }) else {
            tally.skipped += 1;
            continue;
        };
        for difference in judge(case, &outcome, objects, &mut tally) {
            shown += 1;
            if shown <= most {
                println!(
                    "   {}: {difference}",
                    case["id"].as_str().unwrap_or_default()
                );
            }
        }
    }
    let Tally {
        verdicts,
        messages,
        stored,
        warnings,
        skipped,
    } = tally;
    println!(
        "   as recorded: {} of {} verdicts, {} of {} messages, {} of {} stored forms, {} of {} sets of warnings; {skipped} cases of kinds not served",
        verdicts[1],
        verdicts[0],
        messages[1],
        messages[0],
        stored[1],
        stored[0],
        warnings[1],
        warnings[0]
    );
    Ok(verdicts[1] * 10 >= verdicts[0] * 9)
}

/// The differences of one case.
fn judge(case: &Value, outcome: &Outcome, objects: bool, tally: &mut Tally) -> Vec<String> {
    let accepted = outcome.code < 300;
    let said = outcome.body["message"].as_str().unwrap_or_default();
    let wanted = case["message"].as_str().unwrap_or_default();
    count(&mut tally.verdicts, accepted == (case["accepted"] == true));
    if accepted != (case["accepted"] == true) {
        return vec![if accepted {
            format!("accepted, expected: {wanted}")
        } else {
            format!("refused: {said}")
        }];
    }
    let mut differences = Vec::new();
    if !accepted {
        let same = said == wanted
            && case["status"]
                .as_u64()
                .is_none_or(|status| status == u64::from(outcome.code))
            && (case["reason"].is_null() || case["reason"] == outcome.body["reason"]);
        count(&mut tally.messages, same);
        if !same {
            differences.push(format!(
                "refusal\n        expected {} {} {wanted}\n        got      {} {} {said}",
                case["status"], case["reason"], outcome.code, outcome.body["reason"]
            ));
        }
    } else if objects {
        let mut found = Vec::new();
        diff("", &case["stored"], &excerpt(&outcome.body), &mut found);
        found.retain(|difference| {
            !["/creator", "/lastModifier"]
                .iter()
                .any(|end| difference.path.ends_with(end))
        });
        count(&mut tally.stored, found.is_empty());
        differences.extend(
            found
                .iter()
                .map(|difference| format!("stored {difference}")),
        );
    }
    let warned: Vec<&str> = case["warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    count(&mut tally.warnings, warned == outcome.warnings);
    if warned != outcome.warnings {
        differences.push(format!(
            "warnings\n        expected {warned:?}\n        got      {:?}",
            outcome.warnings
        ));
    }
    differences
}

/// What the recording keeps of a stored object.
fn excerpt(object: &Value) -> Value {
    let metadata = ["annotations", "labels"]
        .into_iter()
        .map(|field| (field, &object["metadata"][field]));
    metadata
        .chain([("spec", &object["spec"])])
        .filter(|(_, value)| !value.is_null())
        .map(|(field, value)| (field.to_owned(), value.clone()))
        .collect()
}

async fn create(api: &Api, case: &Value) -> anyhow::Result<Option<Outcome>> {
    let input = &case["input"];
    let Some((_, plural)) = KINDS.iter().find(|(known, _)| input["kind"] == *known) else {
        return Ok(None);
    };
    let version = input["apiVersion"]
        .as_str()
        .context("an input has an apiVersion")?;
    let path =
        format!("/apis/{version}/namespaces/default/{plural}?dryRun=All&fieldValidation=Strict");
    let (code, warnings, body) = api.exchange(http::Method::POST, &path, input).await?;
    Ok(Some(Outcome {
        code,
        warnings,
        body,
    }))
}

async fn configure(api: &Api, case: &Value) -> anyhow::Result<Option<Outcome>> {
    let path = format!(
        "/api/v1/namespaces/knative-serving/configmaps/{}",
        case["configMap"]
            .as_str()
            .context("a case names a ConfigMap")?
    );
    let Some(mut changed) = api.find(&path).await? else {
        return Ok(None);
    };
    changed["data"][case["key"].as_str().context("a case names a key")?] = json!(
        case["value"]
            .as_str()
            .map_or_else(|| case["value"].to_string(), str::to_owned)
    );
    let (code, warnings, body) = api
        .exchange(http::Method::PUT, &format!("{path}?dryRun=All"), &changed)
        .await?;
    Ok(Some(Outcome {
        code,
        warnings,
        body,
    }))
}
