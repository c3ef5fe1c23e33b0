//! Templates as recorded in 01 (ready) and 15 (pod templates).

use kinglet_api::config::{Configs, Deployment, Observability};
use kinglet_api::serving::Revision;
use serde_json::{Value, json};

use super::observability;
use crate::revision::deployment;
use crate::revision::pod::PodInputs;

/// The Revision of a recording, with changes to its spec and annotations.
fn revision(spec: &Value, annotations: &Value) -> Revision {
    let mut value = json!({
        "metadata": {
            "name": "hello-a", "namespace": "ready", "uid": "r-1",
            "labels": {
                "serving.knative.dev/configuration": "hello", "serving.knative.dev/configurationGeneration": "1",
                "serving.knative.dev/configurationUID": "c-1", "serving.knative.dev/routingState": "active",
                "serving.knative.dev/service": "hello", "serving.knative.dev/serviceUID": "s-1",
            },
            "annotations": {
                "serving.knative.dev/creator": "admin", "serving.knative.dev/routes": "hello",
                "serving.knative.dev/routingStateModified": "2026-11-21T10:14:10Z",
            },
            "ownerReferences": [{"apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "name": "hello", "uid": "c-1", "controller": true}],
        },
        "spec": {
            "containerConcurrency": 0,
            "containers": [{
                "name": "user-container", "image": "kn.local/helloworld:1", "env": [{"name": "TARGET", "value": "one"}],
                "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}}, "resources": {},
            }],
            "enableServiceLinks": false, "timeoutSeconds": 300,
        },
    });
    merge(&mut value["spec"], spec);
    merge(&mut value["metadata"]["annotations"], annotations);
    serde_json::from_value(value).unwrap()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) if from.len() == 1 && into.len() == 1 => {
            merge(&mut into[0], &from[0])
        }
        (into, from) => *into = from.clone(),
    }
}

fn configs() -> Configs {
    let deployment = Deployment {
        queue_sidecar_image: "kn.local/queue:1".to_owned(),
        ..Deployment::default()
    };
    Configs {
        deployment,
        ..Configs::default()
    }
}

fn deployment_of(spec: &Value, annotations: &Value, configs: &Configs) -> Value {
    let revision = revision(spec, annotations);
    serde_json::to_value(deployment::build(PodInputs {
        revision: &revision,
        digests: &[],
        configs,
    }))
    .unwrap()
}

/// The recorded spec, in which `OBSERVABILITY` stands for a long value tested elsewhere.
fn recorded() -> Value {
    let text = include_str!("recorded.json");
    let mut spec: Value = serde_json::from_str(text).unwrap();
    let env = spec["template"]["spec"]["containers"][1]["env"]
        .as_array_mut()
        .unwrap();
    env.last_mut().unwrap()["value"] = json!(observability::json(&Observability::default()));
    spec
}

/// Where two documents differ: path, wanted, got.
fn differences(path: &str, want: &Value, got: &Value, into: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let null = Value::Null;
                differences(
                    &format!("{path}.{key}"),
                    a.get(key).unwrap_or(&null),
                    b.get(key).unwrap_or(&null),
                    into,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{at}]"), a, b, into);
            }
        }
        (a, b) if a == b => {}
        (a, b) => into.push(format!("{path}: want {a}, got {b}")),
    }
}

#[test]
fn the_deployment_is_the_recorded_one() {
    let got = deployment_of(&json!({}), &json!({}), &configs());
    let mut found = Vec::new();
    differences("spec", &recorded(), &got["spec"], &mut found);
    assert_eq!(found, [""; 0]);
    assert_eq!(got["metadata"]["name"], "hello-a-deployment");
    assert_eq!(
        got["metadata"]["annotations"],
        json!({"serving.knative.dev/creator": "admin"})
    );
    let mut labels = recorded()["template"]["metadata"]["labels"].clone();
    labels["serving.knative.dev/deployment-hash"] =
        got["metadata"]["labels"]["serving.knative.dev/deployment-hash"].clone();
    assert_eq!(got["metadata"]["labels"], labels);
}

#[test]
fn each_kind_of_container() {
    let user = "template.spec.containers[0]";
    let queue = "template.spec.containers[1]";
    let one = |container: Value| json!({"containers": [container]});
    let probe_env = |json: &str| {
        format!(
            "spec.{queue}.env[16].value: want \"{{\\\"tcpSocket\\\":{{\\\"port\\\":8080,\\\"host\\\":\\\"127.0.0.1\\\"}},\\\"successThreshold\\\":1}}\", got {}",
            Value::String(json.to_owned())
        )
    };
    let rows: Vec<(&str, Value, Value, Vec<String>)> = vec![
        (
            "port-h2c",
            one(json!({"ports": [{"containerPort": 9000, "name": "h2c"}]})),
            json!({}),
            vec![
                format!("spec.{user}.env[1].value: want \"8080\", got \"9000\""),
                format!("spec.{user}.ports[0].containerPort: want 8080, got 9000"),
                probe_env(r#"{"tcpSocket":{"port":9000,"host":"127.0.0.1"},"successThreshold":1}"#),
                format!("spec.{queue}.env[14].value: want \"8080\", got \"9000\""),
                format!("spec.{queue}.env[4].value: want \"8012\", got \"8013\""),
                format!("spec.{queue}.ports[2].containerPort: want 8012, got 8013"),
                format!("spec.{queue}.readinessProbe.httpGet.port: want 8012, got 8013"),
            ],
        ),
        (
            "probe-grpc",
            one(json!({"readinessProbe": {"grpc": {"port": 8080, "service": ""}, "tcpSocket": null}})),
            json!({}),
            vec![probe_env(r#"{"grpc":{"port":8080,"service":""},"successThreshold":1}"#)],
        ),
        (
            "probe-http",
            one(json!({"readinessProbe": {"httpGet": {"path": "/nope", "port": 0}, "tcpSocket": null}})),
            json!({}),
            vec![probe_env(r#"{"httpGet":{"path":"/nope","port":8080,"host":"127.0.0.1","scheme":"HTTP"},"successThreshold":1}"#)],
        ),
        (
            "probe-exec",
            one(json!({"readinessProbe": {"exec": {"command": ["/bin/true"]}, "tcpSocket": null, "periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3}})),
            json!({}),
            vec![
                format!("spec.{user}.readinessProbe: want null, got {}", json!({"exec": {"command": ["/bin/true"]}, "failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1})),
                probe_env(r#"{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3}"#),
            ],
        ),
        (
            "concurrency",
            json!({"containerConcurrency": 7, "idleTimeoutSeconds": 30, "responseStartTimeoutSeconds": 60, "timeoutSeconds": 120}),
            json!({}),
            vec![
                format!("spec.{queue}.env[6].value: want \"0\", got \"7\""),
                format!("spec.{queue}.env[7].value: want \"300\", got \"120\""),
                format!("spec.{queue}.env[8].value: want \"0\", got \"60\""),
                format!("spec.{queue}.env[9].value: want \"0\", got \"30\""),
                "spec.template.spec.terminationGracePeriodSeconds: want 300, got 120".to_owned(),
            ],
        ),
        (
            "resources",
            one(json!({"resources": {"limits": {"cpu": "1", "memory": "128Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}}})),
            json!({"queue.sidecar.serving.knative.dev/cpu-resource-request": "30m", "queue.sidecar.serving.knative.dev/resource-percentage": "20"}),
            vec![
                "spec.template.metadata.annotations.queue.sidecar.serving.knative.dev/cpu-resource-request: want null, got \"30m\"".to_owned(),
                "spec.template.metadata.annotations.queue.sidecar.serving.knative.dev/resource-percentage: want null, got \"20\"".to_owned(),
                format!("spec.{user}.resources.limits: want null, got {}", json!({"cpu": "1", "memory": "128Mi"})),
                format!("spec.{user}.resources.requests: want null, got {}", json!({"cpu": "100m", "memory": "64Mi"})),
                format!("spec.{queue}.resources.limits: want null, got {}", json!({"cpu": "200m", "memory": "200Mi"})),
                format!("spec.{queue}.resources.requests.cpu: want \"25m\", got \"30m\""),
                format!("spec.{queue}.resources.requests.memory: want null, got \"50Mi\""),
            ],
        ),
        (
            "account",
            json!({"serviceAccountName": "default", "automountServiceAccountToken": false, "enableServiceLinks": true, "imagePullSecrets": [{"name": "pull"}]}),
            json!({}),
            vec![
                "spec.template.spec.automountServiceAccountToken: want null, got false".to_owned(),
                "spec.template.spec.enableServiceLinks: want false, got true".to_owned(),
                "spec.template.spec.imagePullSecrets: want null, got [{\"name\":\"pull\"}]".to_owned(),
                "spec.template.spec.serviceAccount: want null, got \"default\"".to_owned(),
                "spec.template.spec.serviceAccountName: want null, got \"default\"".to_owned(),
            ],
        ),
        (
            "scale and own annotations",
            json!({}),
            json!({"autoscaling.knative.dev/initial-scale": "3", "serving.knative.dev/progress-deadline": "30s", "mine": "too"}),
            vec![
                "spec.progressDeadlineSeconds: want 600, got 30".to_owned(),
                "spec.replicas: want 1, got 3".to_owned(),
                "spec.template.metadata.annotations.mine: want null, got \"too\"".to_owned(),
                "spec.template.metadata.annotations.serving.knative.dev/progress-deadline: want null, got \"30s\"".to_owned(),
            ],
        ),
    ];
    let base = recorded();
    for (name, spec, annotations, mut want) in rows {
        let got = deployment_of(&spec, &annotations, &configs());
        let mut found = Vec::new();
        differences("spec", &base, &got["spec"], &mut found);
        found.sort();
        want.sort();
        assert_eq!(found, want, "{name}");
    }
}

#[test]
fn volumes_get_their_modes() {
    let spec = json!({"volumes": [
        {"name": "c", "configMap": {"name": "cm"}}, {"name": "s", "secret": {"secretName": "sec"}}, {"name": "e", "emptyDir": {}},
        {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"audience": "me", "path": "t"}}]}},
    ]});
    let got = deployment_of(&spec, &json!({}), &configs());
    let volumes = &got["spec"]["template"]["spec"]["volumes"];
    assert_eq!(volumes[0]["configMap"]["defaultMode"], 420);
    assert_eq!(volumes[1]["secret"]["defaultMode"], 420);
    assert_eq!(
        volumes[3]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
        3600
    );
}

#[test]
fn a_digest_takes_the_place_of_the_tag() {
    let revision = revision(&json!({}), &json!({}));
    let digests = [kinglet_api::serving::ContainerStatus {
        name: "user-container".to_owned(),
        image_digest: "x@sha256:1".to_owned(),
    }];
    let configs = configs();
    let built = |digests| {
        deployment::build(PodInputs {
            revision: &revision,
            digests,
            configs: &configs,
        })
    };
    let (by_tag, by_digest) = (built(&[][..]), built(&digests[..]));
    let image = |deployment: &k8s_openapi::api::apps::v1::Deployment| {
        deployment
            .spec
            .as_ref()
            .unwrap()
            .template
            .spec
            .as_ref()
            .unwrap()
            .containers[0]
            .image
            .clone()
    };
    assert_eq!(image(&by_digest).as_deref(), Some("x@sha256:1"));
    assert!(deployment::renewed(&by_tag, &by_tag).is_none());
    let mut live = by_tag.clone();
    live.spec.as_mut().unwrap().replicas = Some(9);
    live.metadata.annotations.as_mut().unwrap().insert(
        "kubectl.kubernetes.io/restartedAt".to_owned(),
        "now".to_owned(),
    );
    live.metadata
        .labels
        .as_mut()
        .unwrap()
        .insert("serving.knative.dev/old".to_owned(), "x".to_owned());
    let next = deployment::renewed(&live, &by_digest).unwrap();
    assert_eq!(next.spec.as_ref().unwrap().replicas, Some(9));
    assert!(
        next.metadata
            .annotations
            .unwrap()
            .contains_key("kubectl.kubernetes.io/restartedAt")
    );
    assert!(
        !next
            .metadata
            .labels
            .unwrap()
            .contains_key("serving.knative.dev/old")
    );
}
