//! Creating, changing, refusing.

use http::Method;
use serde_json::{Value, json};

use crate::test_server::{DEPLOYMENTS, MAPS, PODS, TestServer, config_map, deployment, pod};

#[tokio::test]
async fn a_config_map_lives_and_dies() {
    let server = TestServer::new().await;
    let made = server.post(MAPS, config_map("a")).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let metadata = &made.body["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert!(metadata["uid"].as_str().unwrap().len() == 36 && metadata.get("generation").is_none());
    let again = server.post(MAPS, config_map("a")).await;
    assert_eq!(
        (again.code, &again.body["reason"]),
        (409, &json!("AlreadyExists"))
    );
    assert_eq!(again.body["message"], "configmaps \"a\" already exists");
    let mut changed = server.get(&format!("{MAPS}/a")).await.body;
    changed["data"]["k"] = "w".into();
    let updated = server.put(&format!("{MAPS}/a"), changed.clone()).await;
    assert_eq!(updated.code, 200);
    assert_ne!(
        updated.body["metadata"]["resourceVersion"],
        changed["metadata"]["resourceVersion"]
    );
    let stale = server
        .put(&format!("{MAPS}/a"), {
            let mut c = changed.clone();
            c["data"]["k"] = "x".into();
            c
        })
        .await;
    assert_eq!(stale.code, 409);
    assert_eq!(
        stale.body["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let same = server.put(&format!("{MAPS}/a"), updated.body.clone()).await;
    assert_eq!(
        same.body["metadata"]["resourceVersion"], updated.body["metadata"]["resourceVersion"],
        "an update of nothing is none"
    );
    let gone = server.delete(&format!("{MAPS}/a")).await;
    assert_eq!(
        (
            gone.code,
            &gone.body["status"],
            &gone.body["details"]["kind"]
        ),
        (200, &json!("Success"), &json!("configmaps"))
    );
    let missing = server.get(&format!("{MAPS}/a")).await;
    assert_eq!(
        (missing.code, &missing.body["message"]),
        (404, &json!("configmaps \"a\" not found"))
    );
}

#[tokio::test]
async fn names_are_generated_and_checked() {
    let server = TestServer::new().await;
    let made = server
        .post(MAPS, json!({"metadata": {"generateName": "x-"}}))
        .await;
    assert_eq!(made.code, 201, "{}", made.text);
    let name = made.body["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("x-") && name.len() == 7);
    assert_eq!(made.body["kind"], "ConfigMap");
    let bad = server.post(MAPS, config_map("Not_Good")).await;
    assert_eq!((bad.code, &bad.body["reason"]), (422, &json!("Invalid")));
    assert!(bad.body["message"].as_str().unwrap().starts_with("ConfigMap \"Not_Good\" is invalid: metadata.name: Invalid value: \"Not_Good\": a lowercase RFC 1123 subdomain"));
    let none = server.post(MAPS, json!({"metadata": {}})).await;
    assert_eq!(
        none.body["message"],
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"
    );
    let nowhere = server
        .post("/api/v1/namespaces/nowhere/configmaps", config_map("a"))
        .await;
    assert_eq!(
        (nowhere.code, &nowhere.body["message"]),
        (404, &json!("namespaces \"nowhere\" not found"))
    );
    let mut other = config_map("a");
    other["metadata"]["namespace"] = "other".into();
    assert_eq!(server.post(MAPS, other).await.code, 400);
    let kind = server.post(MAPS, pod("a")).await;
    assert_eq!(kind.code, 400, "{}", kind.text);
}

#[tokio::test]
async fn a_pod_gets_what_kubernetes_gives_it() {
    let server = TestServer::new().await;
    let made = server.post(PODS, pod("p")).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let (spec, status) = (&made.body["spec"], &made.body["status"]);
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("serviceAccountName", json!("default")),
        ("enableServiceLinks", json!(true)),
        ("terminationGracePeriodSeconds", json!(30)),
        ("priority", json!(0)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
        ("securityContext", json!({})),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(
        container["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    assert_eq!(
        spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
        3607
    );
    assert_eq!(
        (&status["phase"], &status["qosClass"]),
        (&json!("Pending"), &json!("BestEffort"))
    );
    assert_eq!(made.body["metadata"]["generation"], 1);
    let table = server.table(PODS).await;
    assert_eq!(table.body["kind"], "Table");
    assert_eq!(
        table.body["rows"][0]["cells"].as_array().unwrap()[..4],
        [json!("p"), json!("0/1"), json!("Pending"), json!("0")]
    );
    let bound = server
        .post(&format!("{PODS}/p/binding"), json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}))
        .await;
    assert_eq!(bound.code, 201, "{}", bound.text);
    let now = server.get(&format!("{PODS}/p")).await.body;
    assert_eq!(
        (
            &now["spec"]["nodeName"],
            &now["status"]["conditions"][0]["type"]
        ),
        (&json!("n1"), &json!("PodScheduled"))
    );
    let again = server
        .post(
            &format!("{PODS}/p/binding"),
            json!({"target": {"name": "n2"}}),
        )
        .await;
    assert_eq!(again.code, 409);
    assert_eq!(
        server
            .get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1"))
            .await
            .body["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        server
            .get(&format!("{PODS}?fieldSelector=spec.nodeName!%3Dn1"))
            .await
            .body["items"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    let exec = server
        .post(&format!("{PODS}/p/exec?command=sh"), json!({}))
        .await;
    assert_eq!(
        (exec.code, &exec.body["message"]),
        (
            501,
            &json!("there is no node here that could open a session with a container")
        )
    );
    let mut edited = now.clone();
    edited["spec"]["hostname"] = "other".into();
    assert_eq!(server.put(&format!("{PODS}/p"), edited).await.code, 422);
}

#[tokio::test]
async fn a_bad_pod_is_refused_field_by_field() {
    let server = TestServer::new().await;
    let bad = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "a", "ports": [{"containerPort": 0}], "volumeMounts": [{"name": "none", "mountPath": "/x"}],
         "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
        {"name": "a", "image": "x"}], "restartPolicy": "Sometimes"}});
    let refused = server.post(PODS, bad).await;
    assert_eq!(refused.code, 422, "{}", refused.text);
    let causes = refused.body["details"]["causes"].as_array().unwrap();
    let fields: Vec<&str> = causes
        .iter()
        .map(|c| c["field"].as_str().unwrap())
        .collect();
    for field in [
        "spec.containers[0].image",
        "spec.containers[0].ports[0].containerPort",
        "spec.containers[0].volumeMounts[0].name",
        "spec.containers[0].resources.requests",
        "spec.containers[1].name",
        "spec.restartPolicy",
    ] {
        assert!(fields.contains(&field), "{field} in {fields:?}");
    }
}

#[tokio::test]
async fn deployments_count_generations_and_scale() {
    let server = TestServer::new().await;
    let made = server.post(DEPLOYMENTS, deployment("d")).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(
        made.body["spec"]["strategy"]["rollingUpdate"]["maxSurge"],
        "25%"
    );
    assert_eq!(
        made.body["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"],
        "Always"
    );
    let path = format!("{DEPLOYMENTS}/d");
    let status = server
        .patch(
            &format!("{path}/status"),
            "merge-patch+json",
            json!({"status": {"replicas": 2, "readyReplicas": 1}, "spec": {"replicas": 9}}),
        )
        .await;
    assert_eq!(status.code, 200, "{}", status.text);
    assert_eq!(
        (
            &status.body["spec"]["replicas"],
            &status.body["metadata"]["generation"]
        ),
        (&json!(2), &json!(1))
    );
    let scale = server.get(&format!("{path}/scale")).await;
    assert_eq!(
        (
            &scale.body["spec"]["replicas"],
            &scale.body["status"]["selector"]
        ),
        (&json!(2), &json!("app=d"))
    );
    let scaled = server
        .patch(
            &format!("{path}/scale"),
            "merge-patch+json",
            json!({"spec": {"replicas": 5}}),
        )
        .await;
    assert_eq!(
        (scaled.code, &scaled.body["spec"]["replicas"]),
        (200, &json!(5)),
        "{}",
        scaled.text
    );
    let now = server.get(&path).await.body;
    assert_eq!(
        (
            &now["metadata"]["generation"],
            &now["status"]["readyReplicas"]
        ),
        (&json!(2), &json!(1))
    );
    let mut other = now.clone();
    other["spec"]["selector"] = json!({"matchLabels": {"app": "x"}});
    let refused = server.put(&path, other).await;
    assert_eq!(refused.code, 422);
    assert!(refused.text.contains("field is immutable"));
    let table = server.table(&path).await;
    assert_eq!(
        table.body["rows"][0]["cells"].as_array().unwrap()[..4],
        [json!("d"), json!("1/5"), json!(0), json!(0)]
    );
    let set = server.patch(&path, "strategic-merge-patch+json", json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nginx:2"}]}}}})).await;
    assert_eq!(
        set.body["spec"]["template"]["spec"]["containers"][0]["terminationMessagePath"],
        "/dev/termination-log",
        "{}",
        set.text
    );
    assert_eq!(set.body["metadata"]["generation"], 3);
}

#[tokio::test]
async fn services_get_addresses_and_keep_them() {
    let server = TestServer::new().await;
    let services = "/api/v1/namespaces/default/services";
    let made = server.post(services, json!({"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}})).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let spec = &made.body["spec"];
    let ip = spec["clusterIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("10.96."));
    assert_eq!(
        (
            &spec["clusterIPs"],
            &spec["ports"][0]["targetPort"],
            &spec["type"]
        ),
        (&json!([ip]), &json!(80), &json!("ClusterIP"))
    );
    let updated = server
        .put(
            &format!("{services}/s"),
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 81}]}}),
        )
        .await;
    assert_eq!(
        (updated.code, updated.body["spec"]["clusterIP"].as_str()),
        (200, Some(ip.as_str())),
        "{}",
        updated.text
    );
    let taken = server
        .post(
            services,
            json!({"metadata": {"name": "t"}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}}),
        )
        .await;
    assert_eq!(taken.code, 422);
    assert_eq!(
        server.delete(&format!("{services}/s")).await.body["kind"],
        "Service"
    );
    let again = server
        .post(
            services,
            json!({"metadata": {"name": "t"}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}}),
        )
        .await;
    assert_eq!(again.code, 201, "{}", again.text);
    let external = server.post(services, json!({"metadata": {"name": "e"}, "spec": {"type": "ExternalName", "externalName": "example.com"}})).await;
    assert_eq!(external.code, 201, "{}", external.text);
    let row = server.table(&format!("{services}/e")).await.body["rows"][0]["cells"].clone();
    assert_eq!(
        row.as_array().unwrap()[1..5],
        [
            json!("ExternalName"),
            json!("<none>"),
            json!("example.com"),
            json!("<none>")
        ]
    );
    let nameless = server
        .post(
            services,
            json!({"metadata": {"name": "u"}, "spec": {"ports": [{"port": 80}, {"port": 80}]}}),
        )
        .await;
    assert_eq!(nameless.code, 422);
}

#[tokio::test]
async fn secrets_take_plain_text_and_yaml_is_read() {
    let server = TestServer::new().await;
    let yaml = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  a: b\n";
    let made = server
        .ask(
            Method::POST,
            "/api/v1/namespaces/default/secrets",
            &[("content-type", "application/yaml")],
            yaml.as_bytes().to_vec(),
        )
        .await;
    assert_eq!(
        (made.code, &made.body["data"]["a"], &made.body["type"]),
        (201, &json!("Yg=="), &json!("Opaque")),
        "{}",
        made.text
    );
    assert!(made.body.get("stringData").is_none());
}

#[tokio::test]
async fn unknown_and_double_fields_warn_or_fail() {
    let server = TestServer::new().await;
    let body = br#"{"metadata":{"name":"a"},"data":{},"dta":{},"data":{"k":"v"}}"#.to_vec();
    let json_type = ("content-type", "application/json");
    let strict = server
        .ask(
            Method::POST,
            &format!("{MAPS}?fieldValidation=Strict"),
            &[json_type],
            body.clone(),
        )
        .await;
    assert_eq!(strict.code, 400, "{}", strict.text);
    assert!(
        strict
            .text
            .contains("strict decoding error: duplicate field \\\"data\\\""),
        "{}",
        strict.text
    );
    let warned = server.ask(Method::POST, MAPS, &[json_type], body).await;
    assert_eq!(warned.code, 201, "{}", warned.text);
    assert!(
        warned
            .warnings
            .iter()
            .any(|w| w.starts_with("299 - \"duplicate field")),
        "{:?}",
        warned.warnings
    );
    assert!(warned.body.get("dta").is_none(), "{}", warned.text);
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    let server = TestServer::new().await;
    let made = server
        .post(&format!("{MAPS}?dryRun=All"), config_map("a"))
        .await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 404);
    server.post(MAPS, config_map("a")).await;
    let patched = server
        .patch(
            &format!("{MAPS}/a?dryRun=All"),
            "merge-patch+json",
            json!({"data": {"k": "new"}}),
        )
        .await;
    assert_eq!(
        (patched.code, &patched.body["data"]["k"]),
        (200, &json!("new"))
    );
    assert_eq!(
        server.get(&format!("{MAPS}/a")).await.body["data"]["k"],
        "v"
    );
    assert_eq!(
        server.delete(&format!("{MAPS}/a?dryRun=All")).await.code,
        200
    );
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 200);
    assert_eq!(
        server
            .post(&format!("{MAPS}?dryRun=Some"), config_map("b"))
            .await
            .code,
        422
    );
}

#[tokio::test]
async fn json_patch_and_apply() {
    let server = TestServer::new().await;
    server.post(MAPS, config_map("a")).await;
    let path = format!("{MAPS}/a");
    let patched = server
        .patch(
            &path,
            "json-patch+json",
            json!([{"op": "add", "path": "/data/n", "value": "1"}]),
        )
        .await;
    assert_eq!(
        (patched.code, &patched.body["data"]["n"]),
        (200, &json!("1")),
        "{}",
        patched.text
    );
    let apply = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"x": "y"}});
    let created = server
        .patch(
            &format!("{MAPS}/b?fieldManager=me"),
            "apply-patch+yaml",
            apply.clone(),
        )
        .await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(
        created.body["metadata"]["managedFields"][0]["manager"], "me",
        "{}",
        created.text
    );
    let again = server
        .patch(
            &format!("{MAPS}/b?fieldManager=me"),
            "apply-patch+yaml",
            apply.clone(),
        )
        .await;
    assert_eq!(
        (again.code, &again.body["metadata"]["resourceVersion"]),
        (200, &created.body["metadata"]["resourceVersion"]),
        "{}",
        again.text
    );
    let mut other = apply.clone();
    other["data"]["x"] = "z".into();
    let conflict = server
        .patch(
            &format!("{MAPS}/b?fieldManager=you"),
            "apply-patch+yaml",
            other.clone(),
        )
        .await;
    assert_eq!(
        (
            conflict.code,
            &conflict.body["details"]["causes"][0]["reason"]
        ),
        (409, &json!("FieldManagerConflict")),
        "{}",
        conflict.text
    );
    let forced = server
        .patch(
            &format!("{MAPS}/b?fieldManager=you&force=true"),
            "apply-patch+yaml",
            other,
        )
        .await;
    assert_eq!((forced.code, &forced.body["data"]["x"]), (200, &json!("z")));
    assert_eq!(server.patch(&path, "nonsense", json!({})).await.code, 415);
    let missing = server
        .patch(&format!("{MAPS}/none"), "merge-patch+json", json!({}))
        .await;
    assert_eq!(missing.code, 404);
}

#[tokio::test]
async fn quotas_hold() {
    let server = TestServer::new().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}});
    assert_eq!(
        server
            .post("/api/v1/namespaces/default/resourcequotas", quota)
            .await
            .code,
        201
    );
    assert_eq!(server.post(PODS, pod("a")).await.code, 201);
    let refused = server.post(PODS, pod("b")).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.body["message"],
        "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    );
    let status = server
        .get("/api/v1/namespaces/default/resourcequotas/q")
        .await
        .body["status"]
        .clone();
    assert_eq!(status["used"]["pods"], "1", "{status}");
}

#[tokio::test]
async fn events_have_two_faces() {
    let server = TestServer::new().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "Started",
        "message": "it runs", "type": "Normal", "count": 1, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z"});
    let made = server
        .post("/api/v1/namespaces/default/events", event)
        .await;
    assert_eq!(made.code, 201, "{}", made.text);
    let new = server
        .get("/apis/events.k8s.io/v1/namespaces/default/events/e")
        .await
        .body;
    assert_eq!(
        (&new["note"], &new["regarding"]["name"], &new["apiVersion"]),
        (&json!("it runs"), &json!("p"), &json!("events.k8s.io/v1"))
    );
    let found = server
        .get("/api/v1/events?fieldSelector=involvedObject.name%3Dp,type%3DNormal")
        .await
        .body;
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1));
    let cells =
        server.table("/api/v1/namespaces/default/events").await.body["rows"][0]["cells"].clone();
    assert_eq!(
        cells.as_array().unwrap()[1..4],
        [json!("Normal"), json!("Started"), json!("pod/p")]
    );
    let unknown: Value = server
        .get("/api/v1/events?fieldSelector=color%3Dred")
        .await
        .body;
    assert_eq!(unknown["code"], 400);
}

#[tokio::test]
async fn limit_ranges_fill_in_and_bound() {
    let server = TestServer::new().await;
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "default": {"cpu": "1"}}]}});
    let made = server
        .post("/api/v1/namespaces/default/limitranges", range)
        .await;
    assert_eq!(
        (
            made.code,
            &made.body["spec"]["limits"][0]["defaultRequest"]["cpu"]
        ),
        (201, &json!("1")),
        "{}",
        made.text
    );
    let filled = server.post(PODS, pod("a")).await;
    assert_eq!(
        filled.body["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}),
        "{}",
        filled.text
    );
    let mut greedy = pod("b");
    greedy["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "3"}});
    let refused = server.post(PODS, greedy).await;
    assert_eq!(
        refused.body["message"],
        "pods \"b\" is forbidden: maximum cpu usage per Container is 2, but limit is 3"
    );
}

#[tokio::test]
async fn a_disruption_budget_keeps_the_last_healthy_pod() {
    let server = TestServer::new().await;
    server.post(PODS, pod("a")).await;
    server.patch(
        &format!("{PODS}/a/status"),
        "merge-patch+json",
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
    )
    .await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let made = server.post(budgets, json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}})).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let refused = server
        .post(&format!("{PODS}/a/eviction"), eviction.clone())
        .await;
    assert_eq!(
        (refused.code, &refused.body["reason"]),
        (429, &json!("TooManyRequests")),
        "{}",
        refused.text
    );
    server
        .patch(
            &format!("{budgets}/b"),
            "merge-patch+json",
            json!({"spec": {"minAvailable": 0}}),
        )
        .await;
    assert_eq!(
        server
            .post(&format!("{PODS}/a/eviction"), eviction)
            .await
            .code,
        201
    );
    assert_eq!(server.get(&format!("{PODS}/a")).await.code, 404);
}
