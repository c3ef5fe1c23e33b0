//! One recorded scenario: its steps in the order of its timeline, and the objects at each snapshot.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kinglet_testkit::{Api, Instance, kubectl, web};
use serde_json::{Value, json};

use super::differ::{Difference, diff};
use super::{documents, exceptions};

/// How long a snapshot may take to come true; scaling to zero is the longest wait.
const SETTLE_MAX: Duration = Duration::from_secs(45);
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

/// Answers how many differences are left over all snapshots.
pub(crate) async fn replay(api: &Api, instance: &Instance, folder: &Path, most: usize) -> anyhow::Result<usize> {
    let about = std::fs::read_to_string(folder.join("about.txt")).unwrap_or_default();
    println!("\n== {}: {}", folder.file_name().unwrap_or_default().to_string_lossy(), about.trim());
    let timeline = std::fs::read_to_string(folder.join("timeline.txt")).context("reading timeline.txt")?;
    let mut namespace = String::new();
    let mut left = 0;
    for step in timeline.lines().filter_map(|line| line.split_once("-------- ")).map(|(_, step)| step.trim()) {
        if namespace.is_empty() {
            namespace = first_namespace(folder)?;
            api.create("/api/v1/namespaces", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await?;
        }
        if let Some(file) = step.strip_prefix("kubectl apply -f ") {
            let file = folder.join(file);
            let config = Path::new(&instance.ready.kubeconfig);
            let output = kubectl::run(config, &["-n", &namespace, "apply", "-f", &file.display().to_string()])?;
            if !output.status.success() {
                println!("   {} refused: {}", file.display(), String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default());
            }
        } else if let Some(file) = step.strip_prefix("snapshot ") {
            left += snapshot(api, &namespace, &folder.join(file), most).await?;
        } else if step == "label removed" {
            api.merge(&format!("/apis/serving.knative.dev/v1/namespaces/{namespace}/services/hello"), &json!({"metadata": {"labels": {"networking.knative.dev/visibility": null}}})).await?;
        } else if step.starts_with("request through") {
            let began = Instant::now();
            let answer = web::get(instance.gateway(), &format!("hello.{namespace}.example.com"), "/").await?;
            println!("   request answered {} after {:.0} ms", answer.status, began.elapsed().as_secs_f64() * 1e3);
        }
    }
    api.delete(&format!("/api/v1/namespaces/{namespace}")).await?;
    Ok(left)
}

fn first_namespace(folder: &Path) -> anyhow::Result<String> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("objects-"))).collect();
    files.sort();
    let text = std::fs::read_to_string(files.first().context("the scenario has no snapshot")?)?;
    let objects = documents(&text)?;
    Ok(objects[0]["metadata"]["namespace"].as_str().context("an object has a namespace")?.to_owned())
}

async fn snapshot(api: &Api, namespace: &str, file: &Path, most: usize) -> anyhow::Result<usize> {
    let expected = by_name(documents(&std::fs::read_to_string(file)?)?);
    let began = Instant::now();
    // An object chain comes to rest; what is left when it does not get better any more is the difference.
    let mut best = compare(api, namespace, &expected).await?;
    while !best.0.is_empty() && began.elapsed() < SETTLE_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = compare(api, namespace, &expected).await?;
        if now.0.len() <= best.0.len() {
            best = now;
        }
    }
    let (differences, excepted) = best;
    println!("   {}: {} objects, {} differences, {excepted} exceptions, after {:.1} s", file.file_name().unwrap_or_default().to_string_lossy(), expected.len(), differences.len(), began.elapsed().as_secs_f64());
    for (object, difference) in differences.iter().take(most) {
        println!("     {object} {difference}");
    }
    Ok(differences.len())
}

async fn compare(api: &Api, namespace: &str, expected: &BTreeMap<String, Value>) -> anyhow::Result<(Vec<(String, Difference)>, usize)> {
    let mut objects = Vec::new();
    for collection in COLLECTIONS {
        let list = api.get(&collection.replace("NS", namespace)).await?;
        let kind = list["kind"].as_str().unwrap_or_default().trim_end_matches("List").to_owned();
        for mut item in list["items"].as_array().cloned().unwrap_or_default() {
            item["kind"] = json!(kind);
            item["apiVersion"] = list["apiVersion"].clone();
            objects.push(item);
        }
    }
    let actual = by_name(objects);
    let (mut found, mut excepted) = (Vec::new(), 0);
    let mut names: Vec<&String> = expected.keys().chain(actual.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let mut differences = Vec::new();
        match (expected.get(name), actual.get(name)) {
            (Some(left), Some(right)) => diff("", left, right, &mut differences),
            (left, right) => differences.push(Difference { path: "the object".to_owned(), expected: left.map(|_| json!("there")), actual: right.map(|_| json!("there")) }),
        }
        let kind = name.split('/').next().unwrap_or_default();
        for difference in differences {
            if exceptions::reason(kind, &difference).is_some() {
                excepted += 1;
            } else {
                found.push((name.clone(), difference));
            }
        }
    }
    Ok((found, excepted))
}

/// Objects by kind and name, with random suffixes replaced by words, so that both sides have the same names.
fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let mut words: Vec<(String, String)> = Vec::new();
    for object in &objects {
        let (kind, name) = (object["kind"].as_str().unwrap_or_default(), object["metadata"]["name"].as_str().unwrap_or_default());
        match kind {
            "ReplicaSet" => {
                if let Some((_, hash)) = name.rsplit_once('-') {
                    words.push((hash.to_owned(), "HASH".to_owned()));
                }
            }
            "Pod" => {
                if let Some((_, suffix)) = name.rsplit_once('-') {
                    words.push((suffix.to_owned(), "POD".to_owned()));
                }
                for volume in object["spec"]["volumes"].as_array().into_iter().flatten() {
                    if let Some(suffix) = volume["name"].as_str().and_then(|name| name.strip_prefix("kube-api-access-")) {
                        words.push((suffix.to_owned(), "ACCESS".to_owned()));
                    }
                }
            }
            "EndpointSlice" => {
                if let Some((_, suffix)) = name.rsplit_once('-') {
                    words.push((suffix.to_owned(), "SLICE".to_owned()));
                }
            }
            _ => {}
        }
    }
    // A pod of a deleted ReplicaSet still carries its hash in labels.
    let mut named = BTreeMap::new();
    for object in objects {
        let mut object = object;
        replace(&mut object, &words);
        let group = object["apiVersion"].as_str().unwrap_or_default().split_once('/').map_or("", |(group, _)| group).to_owned();
        let key = format!("{}/{}{}", object["kind"].as_str().unwrap_or_default(), object["metadata"]["name"].as_str().unwrap_or_default(), if group.ends_with("knative.dev") { format!(" ({group})") } else { String::new() });
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

fn replace(value: &mut Value, words: &[(String, String)]) {
    match value {
        Value::String(text) => {
            for (word, with) in words {
                if text == word || text.ends_with(&format!("-{word}")) || text.contains(&format!("-{word}-")) || text.contains(&format!("-{word}\"")) {
                    *text = text.replace(word.as_str(), with);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, words)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, words)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
