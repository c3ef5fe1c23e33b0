//! One recorded scenario: its steps in the order of its timeline, and the objects at each snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kinglet_testkit::{Api, Instance, kubectl, web};
use serde_json::{Value, json};

use super::differ::{Difference, diff};
use super::{Show, documents, exceptions, tables};

/// How long a snapshot may take to come true.
const SETTLE_MAX: Duration = Duration::from_secs(15);
/// The same where a revision has to go to zero first.
const SETTLE_TO_ZERO_MAX: Duration = Duration::from_secs(60);
/// The same where a progress deadline (30 s), a stable window (60 s) and the grace before zero come first.
const SETTLE_FAILED_MAX: Duration = Duration::from_secs(150);
/// How long the last events may take.
const EVENTS_MAX: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Collections that make up the chain.
const COLLECTIONS: [&str; 15] = [
    "/apis/serving.knative.dev/v1/namespaces/NS/services",
    "/apis/serving.knative.dev/v1/namespaces/NS/configurations",
    "/apis/serving.knative.dev/v1/namespaces/NS/revisions",
    "/apis/serving.knative.dev/v1/namespaces/NS/routes",
    "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/NS/podautoscalers",
    "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/NS/metrics",
    "/apis/networking.internal.knative.dev/v1alpha1/namespaces/NS/serverlessservices",
    "/apis/networking.internal.knative.dev/v1alpha1/namespaces/NS/ingresses",
    "/apis/caching.internal.knative.dev/v1alpha1/namespaces/NS/images",
    "/apis/apps/v1/namespaces/NS/deployments",
    "/apis/apps/v1/namespaces/NS/replicasets",
    "/api/v1/namespaces/NS/pods",
    "/api/v1/namespaces/NS/services",
    "/api/v1/namespaces/NS/endpoints",
    "/apis/discovery.k8s.io/v1/namespaces/NS/endpointslices",
];

/// Answers how many differences are left over all snapshots, refusals and Events.
pub(crate) async fn replay(
    api: &Api,
    instance: &Instance,
    folder: &Path,
    show: Show,
) -> anyhow::Result<usize> {
    let scenario = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let about = std::fs::read_to_string(folder.join("about.txt")).unwrap_or_default();
    println!("\n== {scenario}: {}", about.trim());
    let namespace = first_namespace(folder)?;
    api.create(
        "/api/v1/namespaces",
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
    )
    .await?;
    if scenario == "08-quota" {
        forbid_pods(api, &namespace).await?;
    }
    let mut left = 0;
    for Step { what, refusal } in steps(
        &std::fs::read_to_string(folder.join("timeline.txt")).context("reading timeline.txt")?,
    ) {
        if let Some(file) = what.strip_prefix("kubectl apply -f ") {
            left += apply(
                instance,
                &namespace,
                &scenario,
                &folder.join(file),
                refusal.as_deref(),
            )?;
        } else if let Some(file) = what.strip_prefix("snapshot ") {
            left += snapshot(api, &namespace, &scenario, &folder.join(file), show).await?;
            left += tables::compare(
                Path::new(&instance.ready.kubeconfig),
                &namespace,
                &folder.join(
                    file.replace("objects-", "kubectl-get-")
                        .replace(".yaml", ".txt"),
                ),
            )?;
        } else if what == "label removed" {
            api.merge(
                &format!("/apis/serving.knative.dev/v1/namespaces/{namespace}/services/hello"),
                &json!({"metadata": {"labels": {"networking.knative.dev/visibility": null}}}),
            )
            .await?;
        } else if what.starts_with("request through") {
            let began = Instant::now();
            let answer = web::get(
                instance.gateway(),
                &format!("hello.{namespace}.example.com"),
                "/",
            )
            .await?;
            println!(
                "   request answered {} after {:.0} ms",
                answer.status,
                began.elapsed().as_secs_f64() * 1e3
            );
            left += usize::from(answer.status != 200);
        }
    }
    left += events(api, &namespace, &folder.join("events.txt"), show).await?;
    api.delete(&format!("/api/v1/namespaces/{namespace}"))
        .await?;
    Ok(left)
}

/// The quota that was there before the recording began.
async fn forbid_pods(api: &Api, namespace: &str) -> anyhow::Result<()> {
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    });
    api.create(
        &format!("/api/v1/namespaces/{namespace}/resourcequotas"),
        &quota,
    )
    .await?;
    Ok(())
}

/// One line of the recording that is somebody's doing, and what the server said if it refused.
struct Step {
    what: String,
    refusal: Option<String>,
}

fn steps(timeline: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut refused = false;
    for line in timeline.lines() {
        if let Some((_, what)) = line.split_once("-------- ") {
            match (what.strip_prefix("refused: "), steps.last_mut()) {
                (Some(text), Some(step)) => step.refusal = Some(text.to_owned()),
                _ => steps.push(Step {
                    what: what.trim().to_owned(),
                    refusal: None,
                }),
            }
            refused = what.starts_with("refused: ");
        } else if timed(line) {
            refused = false;
        } else if refused
            && let Some(Step {
                refusal: Some(refusal),
                ..
            }) = steps.last_mut()
        {
            refusal.push('\n');
            refusal.push_str(line);
        }
    }
    steps
}

/// Whether a line begins as entries of the timeline do: `  1.04s …`.
fn timed(line: &str) -> bool {
    line.trim_start()
        .split_once("s ")
        .is_some_and(|(seconds, _)| seconds.parse::<f64>().is_ok())
}

/// Applies a file as the recording did; answers 1 if the verdict or its words differ.
fn apply(
    instance: &Instance,
    namespace: &str,
    scenario: &str,
    file: &Path,
    refusal: Option<&str>,
) -> anyhow::Result<usize> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let known = exceptions::accepted(scenario, &name);
    let path = file.display().to_string();
    let mut arguments = vec!["-n", namespace, "apply", "-f", &path];
    if known.is_some() {
        arguments.push("--dry-run=server");
    }
    let output = kubectl::run(Path::new(&instance.ready.kubeconfig), &arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    match (output.status.success(), refusal, known) {
        (true, None, None) => return Ok(0),
        (true, Some(_), Some(reason)) => {
            println!("   {name}: accepted, refused in the recording: {reason}");
            return Ok(0);
        }
        (false, Some(recorded), None) if sentence(recorded) == sentence(&said) => return Ok(0),
        (false, Some(recorded), None) => println!(
            "   {name}: refused with other words\n     expected {}\n     got      {}",
            sentence(recorded).join("\n              "),
            sentence(&said).join("\n              ")
        ),
        (true, Some(recorded), None) => println!(
            "   {name}: accepted, expected: {}",
            sentence(recorded).join("\n")
        ),
        (false, None, _) => println!("   {name}: refused: {}", said.trim()),
        (_, _, Some(_)) => println!(
            "   {name}: no longer the exception that it is listed as: {}",
            said.trim()
        ),
    }
    Ok(1)
}

/// What the server said, without what kubectl says around it. Whole structs among the details are left out: upstream
/// prints them in Go's notation, we as JSON.
fn sentence(said: &str) -> Vec<&str> {
    let begin = said.find("admission webhook").unwrap_or(0);
    let whole = |line: &&str| {
        ["\"&", "\"{"].into_iter().any(|start| {
            line.trim_start_matches(['\t', '-', '+', ':', ' '])
                .starts_with(start)
        })
    };
    said[begin..]
        .trim_end()
        .lines()
        .filter(|line| !whole(line))
        .collect()
}

/// Compares the Events as a set.
async fn events(api: &Api, namespace: &str, file: &Path, show: Show) -> anyhow::Result<usize> {
    let expected = event_lines(
        std::fs::read_to_string(file)?
            .lines()
            .map(str::to_owned)
            .collect(),
    );
    let began = Instant::now();
    loop {
        let list = api
            .get(&format!("/api/v1/namespaces/{namespace}/events"))
            .await?;
        let lines = list["items"].as_array().into_iter().flatten().map(|event| {
            let text = |field: &str| event[field].as_str().unwrap_or_default();
            let about = |field: &str| event["involvedObject"][field].as_str().unwrap_or_default();
            format!(
                "{} {} {}/{}: {}",
                text("type"),
                text("reason"),
                about("kind"),
                about("name"),
                text("message")
            )
        });
        let actual = event_lines(lines.collect());
        let wrong: Vec<String> = expected
            .difference(&actual)
            .map(|line| ("missing", line))
            .chain(
                actual
                    .difference(&expected)
                    .map(|line| ("not expected", line)),
            )
            .filter(|(_, line)| exceptions::event(line).is_none())
            .map(|(what, line)| format!("{what}: {line}"))
            .collect();
        if wrong.is_empty() || began.elapsed() > EVENTS_MAX {
            println!(
                "   events: {} recorded, {} here, {} differences",
                expected.len(),
                actual.len(),
                wrong.len()
            );
            wrong
                .iter()
                .take(show.most)
                .for_each(|line| println!("     {line}"));
            return Ok(wrong.len());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Lines `Type Reason Kind/name: message` with random suffixes replaced.
fn event_lines(lines: Vec<String>) -> BTreeSet<String> {
    let names = lines.iter().filter_map(|line| {
        line.split(' ')
            .nth(2)?
            .trim_end_matches(':')
            .split_once('/')
    });
    let words: Vec<(String, String)> = names.filter_map(|(kind, name)| word(kind, name)).collect();
    let replaced = lines.into_iter().map(|line| {
        let mut line = Value::String(line);
        replace(&mut line, &words);
        let line = line.as_str().unwrap_or_default();
        // What follows names the pod once more, and its uid.
        let back_off = line.contains("Back-off restarting failed container");
        match line.split_once(" in pod ").filter(|_| back_off) {
            Some((said, _)) => said.to_owned(),
            None => line.to_owned(),
        }
    });
    replaced.collect()
}

/// The random part of a name and what stands for it.
fn word(kind: &str, name: &str) -> Option<(String, String)> {
    let with = match kind {
        "ReplicaSet" => "HASH",
        "Pod" => "POD",
        "EndpointSlice" => "SLICE",
        _ => return None,
    };
    name.rsplit_once('-')
        .map(|(_, suffix)| (suffix.to_owned(), with.to_owned()))
}

fn first_namespace(folder: &Path) -> anyhow::Result<String> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("objects-"))
        })
        .collect();
    files.sort();
    let text = std::fs::read_to_string(files.first().context("the scenario has no snapshot")?)?;
    let objects = documents(&text)?;
    Ok(objects[0]["metadata"]["namespace"]
        .as_str()
        .context("an object has a namespace")?
        .to_owned())
}

async fn snapshot(
    api: &Api,
    namespace: &str,
    scenario: &str,
    file: &Path,
    show: Show,
) -> anyhow::Result<usize> {
    let expected = by_name(documents(&std::fs::read_to_string(file)?)?);
    let began = Instant::now();
    // An object chain comes to rest; what is left when it does not get better any more is the difference.
    let limit = if file.to_string_lossy().contains("zero") {
        SETTLE_TO_ZERO_MAX
    } else if file.to_string_lossy().contains("failed") {
        SETTLE_FAILED_MAX
    } else {
        SETTLE_MAX
    };
    let mut best = compare(api, namespace, scenario, &expected).await?;
    while !best.differences.is_empty() && began.elapsed() < limit {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = compare(api, namespace, scenario, &expected).await?;
        if now.differences.len() < best.differences.len() {
            best = now;
        }
    }
    let Found {
        differences,
        excepted,
    } = best;
    println!(
        "   {}: {} objects, {} differences, {} exceptions, after {:.1} s",
        file.file_name().unwrap_or_default().to_string_lossy(),
        expected.len(),
        differences.len(),
        excepted.len(),
        began.elapsed().as_secs_f64()
    );
    for (object, difference) in differences.iter().take(show.most) {
        println!("     {object} {difference}");
    }
    for (object, difference, reason) in excepted.iter().filter(|_| show.exceptions) {
        println!("     excepted: {object} {difference} ({reason})");
    }
    Ok(differences.len())
}

/// What a look at the objects found.
#[derive(Default)]
struct Found {
    differences: Vec<(String, Difference)>,
    excepted: Vec<(String, Difference, &'static str)>,
}

async fn compare(
    api: &Api,
    namespace: &str,
    scenario: &str,
    expected: &BTreeMap<String, Value>,
) -> anyhow::Result<Found> {
    let mut objects = Vec::new();
    for collection in COLLECTIONS {
        let list = api.get(&collection.replace("NS", namespace)).await?;
        let kind = list["kind"]
            .as_str()
            .unwrap_or_default()
            .trim_end_matches("List")
            .to_owned();
        for mut item in list["items"].as_array().cloned().unwrap_or_default() {
            item["kind"] = json!(kind);
            item["apiVersion"] = list["apiVersion"].clone();
            objects.push(item);
        }
    }
    let actual = by_name(objects);
    let Found {
        mut differences,
        mut excepted,
    } = Found::default();
    let mut names: Vec<&String> = expected.keys().chain(actual.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let mut found = Vec::new();
        match (expected.get(name), actual.get(name)) {
            (Some(left), Some(right)) => diff("", left, right, &mut found),
            (left, right) => found.push(Difference {
                path: "the object".to_owned(),
                expected: left.map(|_| json!("there")),
                actual: right.map(|_| json!("there")),
            }),
        }
        for difference in found {
            if let Some(reason) = exceptions::reason(scenario, name, &difference) {
                excepted.push((name.clone(), difference, reason));
            } else {
                differences.push((name.clone(), difference));
            }
        }
    }
    Ok(Found {
        differences,
        excepted,
    })
}

/// Objects by kind and name, with random suffixes replaced by words, so that both sides have the same names.
fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let mut words: Vec<(String, String)> = Vec::new();
    for object in &objects {
        let (kind, name) = (
            object["kind"].as_str().unwrap_or_default(),
            object["metadata"]["name"].as_str().unwrap_or_default(),
        );
        words.extend(word(kind, name));
        for volume in object["spec"]["volumes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|_| kind == "Pod")
        {
            if let Some(suffix) = volume["name"]
                .as_str()
                .and_then(|name| name.strip_prefix("kube-api-access-"))
            {
                words.push((suffix.to_owned(), "ACCESS".to_owned()));
            }
        }
    }
    // A pod of a deleted ReplicaSet still carries its hash in labels.
    let mut named = BTreeMap::new();
    for object in objects {
        let mut object = object;
        replace(&mut object, &words);
        order(&mut object);
        let group = object["apiVersion"]
            .as_str()
            .unwrap_or_default()
            .split_once('/')
            .map_or("", |(group, _)| group)
            .to_owned();
        let key = format!(
            "{}/{}{}",
            object["kind"].as_str().unwrap_or_default(),
            object["metadata"]["name"].as_str().unwrap_or_default(),
            if group.ends_with("knative.dev") {
                format!(" ({group})")
            } else {
                String::new()
            }
        );
        let mut numbered = key.clone();
        let mut number = 1;
        while named.contains_key(&numbered) {
            number += 1;
            numbered = format!("{key} #{number}");
        }
        named.insert(numbered, object);
    }
    named
}

/// Ports of Endpoints and slices come in the order of a hash upstream, and annotations may be no map at all.
fn order(object: &mut Value) {
    let by_name = |ports: &mut Value| {
        if let Some(ports) = ports.as_array_mut() {
            ports.sort_by_key(|port| port["name"].as_str().unwrap_or_default().to_owned());
        }
    };
    match object["kind"].as_str() {
        Some("EndpointSlice") => by_name(&mut object["ports"]),
        Some("Endpoints") => object["subsets"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .for_each(|subset| by_name(&mut subset["ports"])),
        _ => {}
    }
    if object["metadata"]["annotations"].is_null() {
        object["metadata"]["annotations"] = json!({});
    }
}

fn replace(value: &mut Value, words: &[(String, String)]) {
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
