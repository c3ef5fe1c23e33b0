//! A row for each check: what a pod sets, and what is said of it.

use serde_json::json;

use super::*;

fn policy(level: Level) -> Policy {
    Policy {
        level,
        version: None,
        labelled: true,
    }
}

fn container(security: impl Into<Value>) -> Value {
    json!({"containers": [{"name": "c", "image": "i", "securityContext": security.into()}]})
}

/// What the restricted level asks for, with further fields.
fn restricted_with(pod: Value, own: Value) -> Value {
    let mut security =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let mut of_pod = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    for (target, more) in [(&mut security, own), (&mut of_pod, pod)] {
        for (key, value) in more.as_object().into_iter().flatten() {
            target[key] = value.clone();
        }
    }
    let mut spec = container(security);
    spec["securityContext"] = of_pod;
    spec
}

#[test]
fn baseline_as_a_table() {
    let rows: Vec<(Value, Option<&str>)> = vec![
        (container(json!({})), None),
        (
            container(json!({"capabilities": {"add": ["CHOWN", "NET_BIND_SERVICE"]}})),
            None,
        ),
        (
            container(json!({"capabilities": {"add": ["NET_ADMIN", "SYS_TIME"]}})),
            Some(
                "non-default capabilities (container \"c\" must not include \"NET_ADMIN\", \"SYS_TIME\" in securityContext.capabilities.add)",
            ),
        ),
        (
            json!({"hostNetwork": true, "hostPID": true, "hostIPC": true, "containers": []}),
            Some("host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)"),
        ),
        (
            json!({"volumes": [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "hostPath": {"path": "/"}}, {"name": "c", "emptyDir": {}}]}),
            Some("hostPath volumes (volumes \"a\", \"b\")"),
        ),
        (
            json!({"containers": [{"name": "c", "ports": [{"hostPort": 80, "containerPort": 80}, {"hostPort": 81, "containerPort": 81}]}]}),
            Some("hostPort (container \"c\" uses hostPorts 80, 81)"),
        ),
        (
            json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "127.0.0.1", "port": 1}}}]}),
            Some(
                "probe or lifecycle host (container \"c\" must not set host in probes or lifecycle hooks)",
            ),
        ),
        (
            json!({"initContainers": [{"name": "i", "securityContext": {"privileged": true}}], "containers": [{"name": "c", "securityContext": {"privileged": true}}]}),
            Some(
                "privileged (containers \"i\", \"c\" must not set securityContext.privileged=true)",
            ),
        ),
        (
            container(json!({"procMount": "Unmasked"})),
            Some(
                "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
            ),
        ),
        (
            container(json!({"seLinuxOptions": {"type": "container_t", "level": "s0"}})),
            None,
        ),
        (
            container(json!({"seLinuxOptions": {"type": "spc_t", "user": "u"}})),
            Some(
                "seLinuxOptions (container \"c\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
            ),
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}, "containers": [{"name": "c", "securityContext": {"seccompProfile": {"type": "Unconfined"}}}]}),
            Some(
                "seccompProfile (pod and container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}, {"name": "kernel.msgmax", "value": "1"}]}}),
            Some("forbidden sysctls (kernel.msgmax)"),
        ),
        (
            container(json!({"windowsOptions": {"hostProcess": true}})),
            Some(
                "hostProcess (container \"c\" must not set securityContext.windowsOptions.hostProcess=true)",
            ),
        ),
        (
            container(json!({"appArmorProfile": {"type": "Unconfined"}})),
            Some(
                "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
            ),
        ),
    ];
    for (spec, expected) in rows {
        let found = checks::violation(&Value::Null, &spec, policy(Level::Baseline));
        assert_eq!(found.as_deref(), expected, "{spec}");
        assert_eq!(
            checks::violation(&Value::Null, &spec, policy(Level::Privileged)),
            None
        );
    }
}

#[test]
fn restricted_as_a_table() {
    let none = || json!({});
    let rows: Vec<(Value, Option<&str>)> = vec![
        (restricted_with(none(), none()), None),
        (
            restricted_with(
                none(),
                json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}),
            ),
            None,
        ),
        (
            restricted_with(none(), json!({"allowPrivilegeEscalation": null})),
            Some(
                "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)",
            ),
        ),
        (
            restricted_with(none(), json!({"capabilities": {"add": ["CHOWN"]}})),
            Some(
                "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]; container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
            ),
        ),
        (
            restricted_with(json!({"runAsNonRoot": null}), none()),
            Some(
                "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
            ),
        ),
        (
            restricted_with(none(), json!({"runAsNonRoot": false})),
            Some(
                "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
            ),
        ),
        (
            restricted_with(none(), json!({"runAsUser": 0})),
            Some("runAsUser=0 (container \"c\" must not set runAsUser=0)"),
        ),
        (
            restricted_with(json!({"seccompProfile": null}), none()),
            Some(
                "seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
            ),
        ),
    ];
    for (spec, expected) in rows {
        let found = checks::violation(&Value::Null, &spec, policy(Level::Restricted));
        assert_eq!(found.as_deref(), expected, "{spec}");
    }
    let mut spec = restricted_with(none(), none());
    spec["volumes"] = json!([{"name": "v", "hostPath": {"path": "/"}}]);
    assert_eq!(
        checks::violation(&Value::Null, &spec, policy(Level::Restricted)).unwrap(),
        "hostPath volumes (volume \"v\"), restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")"
    );
}

#[test]
fn labels_say_what_a_namespace_demands() {
    let of = |labels: Value| {
        let policies = Policies::of(&json!({"metadata": {"labels": labels}}));
        format!("{} {}", policies.enforce, policies.warn)
    };
    assert_eq!(of(json!({})), "baseline:latest baseline:latest");
    assert_eq!(
        of(json!({"pod-security.kubernetes.io/enforce": "privileged"})),
        "privileged:latest privileged:latest"
    );
    assert_eq!(
        of(
            json!({"pod-security.kubernetes.io/enforce": "privileged", "pod-security.kubernetes.io/warn": "restricted",
            "pod-security.kubernetes.io/warn-version": "v1.22"})
        ),
        "privileged:latest restricted:v1.22"
    );
    assert_eq!(
        of(json!({"pod-security.kubernetes.io/enforce": "nonsense"})),
        "restricted:latest restricted:latest"
    );
    let mut causes = Vec::new();
    validate_labels(
        &json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "nonsense", "pod-security.kubernetes.io/warn-version": "1.2"}}}),
        &mut causes,
    );
    let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "metadata.labels[pod-security.kubernetes.io/enforce]",
            "metadata.labels[pod-security.kubernetes.io/warn-version]"
        ]
    );
}
