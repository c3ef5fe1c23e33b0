//! What Go clients send: zero values of fields that were not set.

use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::Odds;
use crate::world::{SERVICES, World, service};

#[test]
fn zero_values_that_go_writes_out_are_as_if_they_were_not_there() {
    crate::run(async {
        let world = World::start(1, Odds::CALM).await;
        let container = |extra: Value| json!({"template": {"spec": {"containers": [extra]}}});
        let template = |extra: Value| json!({"template": extra});
        let rows: [(&str, Value); 14] = [
            (
                "port-number",
                container(json!({"ports": [{"name": "h2c", "containerPort": 0}]})),
            ),
            (
                "port-zeros",
                container(
                    json!({"ports": [{"name": "", "hostPort": 0, "containerPort": 8080, "protocol": "", "hostIP": ""}]}),
                ),
            ),
            ("resources", container(json!({"resources": {}}))),
            (
                "resource-maps",
                container(json!({"resources": {"limits": {}, "requests": {}}})),
            ),
            ("security", container(json!({"securityContext": {}}))),
            (
                "texts",
                container(
                    json!({"name": "", "workingDir": "", "command": null, "args": [], "terminationMessagePath": "", "terminationMessagePolicy": "", "imagePullPolicy": "", "stdin": false, "tty": false}),
                ),
            ),
            (
                "lists",
                container(
                    json!({"ports": null, "env": null, "envFrom": [], "volumeMounts": null, "livenessProbe": null, "startupProbe": null}),
                ),
            ),
            (
                "probe",
                container(
                    json!({"readinessProbe": {"httpGet": {"path": "/", "port": 0, "host": "", "scheme": ""}, "initialDelaySeconds": 0, "timeoutSeconds": 0, "periodSeconds": 0, "successThreshold": 0, "failureThreshold": 0}}),
                ),
            ),
            (
                "liveness",
                container(
                    json!({"livenessProbe": {"tcpSocket": {"port": 0}, "periodSeconds": 0, "failureThreshold": 0}}),
                ),
            ),
            (
                "metadata",
                template(
                    json!({"metadata": {"creationTimestamp": null, "name": ""}, "spec": {"containers": [{}]}}),
                ),
            ),
            (
                "revision",
                template(
                    json!({"spec": {"containers": [{}], "timeoutSeconds": 0, "containerConcurrency": 0, "volumes": null, "initContainers": null, "serviceAccountName": "", "imagePullSecrets": null}}),
                ),
            ),
            (
                "traffic",
                json!({"template": {"spec": {"containers": [{}]}}, "traffic": [{"latestRevision": true, "percent": 100, "tag": "", "revisionName": "", "configurationName": ""}, {"latestRevision": true, "percent": 0, "tag": "next"}]}),
            ),
            (
                "no-percent",
                json!({"template": {"spec": {"containers": [{}]}}, "traffic": [{"latestRevision": true, "percent": 100}, {"latestRevision": true, "percent": null, "tag": "next"}]}),
            ),
            (
                "no-traffic",
                json!({"template": {"spec": {"containers": [{}]}}, "traffic": null}),
            ),
        ];
        for (name, mut spec) in rows {
            spec["template"]["spec"]["containers"][0]["image"] = json!("registry.example/hello:1");
            let mut body = service(name, "", "");
            body["spec"] = spec;
            body["metadata"]["creationTimestamp"] = Value::Null;
            body["status"] = json!({});
            let created = world.call("POST", SERVICES, body).await;
            assert!(created.is_ok(), "{name}: {}", created.unwrap_err());
            let path = format!("{SERVICES}/{name}");
            world
                .until(name, Duration::from_secs(30), async || {
                    let found = world.get(&path).await.unwrap();
                    crate::world::condition(&found, "Ready")["status"] == "True"
                })
                .await;
        }
        let deployment = world
            .get("/apis/apps/v1/namespaces/default/deployments/port-number-00001-deployment")
            .await
            .unwrap();
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["ports"][0]["containerPort"], 8080);
        let port = json!({"name": "PORT", "value": "8080"});
        assert!(
            container["env"].as_array().unwrap().contains(&port),
            "{container}"
        );
    });
}
