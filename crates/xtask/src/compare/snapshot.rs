//! The objects at one moment of a scenario beside the recorded ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use kinglet_testkit::Api;
use serde_json::{Value, json};

use super::differ::{Difference, diff};
use super::names::{replace, word};
use super::{Show, documents, exceptions};

/// How long a snapshot may take to come true.
const SETTLE_MAX: Duration = Duration::from_secs(15);
/// The same where a revision has to go to zero first.
const SETTLE_TO_ZERO_MAX: Duration = Duration::from_secs(60);
/// The same where a progress deadline (30 s), a stable window (60 s) and the grace before zero come first.
const SETTLE_FAILED_MAX: Duration = Duration::from_secs(150);

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
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits until the objects are as recorded, and answers how many differences are left when they do not get fewer any more.
pub(super) async fn snapshot(
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
