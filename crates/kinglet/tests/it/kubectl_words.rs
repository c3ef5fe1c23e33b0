//! What the real kubectl says of kinds that nobody serves, of rights, of pruning and of what is refused.

use std::path::Path;

use anyhow::{Context as _, ensure};
use kinglet_testkit::kubectl::{program, run as kubectl};

use crate::{not_run, run, start};

/// A file that commands name as `{FILE}`.
const FILES: &[(&str, &str)] = &[
    (
        "thing.yaml",
        "apiVersion: nosuch.example.com/v1\nkind: Thing\nmetadata: {name: x}\n",
    ),
    (
        "set.yaml",
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: x}\n",
    ),
    (
        "both.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c1, labels: {app: a}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c2, labels: {app: a}}\n",
    ),
    (
        "one.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c1, labels: {app: a}}\ndata: {k: v}\n",
    ),
    (
        "root.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: root}\nspec: {containers: [{name: a, image: samples.kinglet/helloworld}], volumes: [{name: v, hostPath: {path: /}}]}\n",
    ),
    (
        "network.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: net}\nspec: {hostNetwork: true, containers: [{name: a, image: samples.kinglet/helloworld}]}\n",
    ),
];

/// Arguments, whether they succeed, and what is said.
const COMMANDS: &[(&str, bool, &str)] = &[
    (
        "apply -f {thing.yaml}",
        false,
        "no matches for kind \"Thing\" in version \"nosuch.example.com/v1\"",
    ),
    (
        "create -f {thing.yaml}",
        false,
        "no matches for kind \"Thing\" in version \"nosuch.example.com/v1\"",
    ),
    (
        "get things",
        false,
        "the server doesn't have a resource type \"things\"",
    ),
    (
        "create -f {set.yaml}",
        false,
        "StatefulSet in version \"apps/v1\" is not supported",
    ),
    ("get statefulsets,pvc,jobs", true, "No resources found"),
    ("apply -f {both.yaml}", true, "configmap/c2 created"),
    (
        "apply -f {one.yaml} --prune -l app=a --prune-allowlist=core/v1/ConfigMap",
        true,
        "configmap/c2 pruned",
    ),
    (
        "apply -f {one.yaml} --prune -l app=a",
        true,
        "configmap/c1 unchanged",
    ),
    (
        "patch configmap c1 -p {\"data\":{\"x\":\"1\"}}",
        true,
        "configmap/c1 patched",
    ),
    (
        "patch configmap c1 --type=json -p [{\"op\":\"remove\",\"path\":\"/data/x\"}]",
        true,
        "configmap/c1 patched",
    ),
    (
        "replace --force -f {one.yaml}",
        true,
        "configmap/c1 replaced",
    ),
    (
        "cluster-info dump --namespaces=default",
        true,
        "\"kind\": \"PodList\"",
    ),
    (
        "explain pod.spec.hostUsers",
        true,
        "FIELD: hostUsers <boolean>",
    ),
    ("get --raw /api/v1/namespaces/default", true, "\"default\""),
    ("auth can-i list pods --as=jane", false, "no"),
    (
        "create rolebinding jane --clusterrole=edit --user=jane",
        true,
        "created",
    ),
    ("auth can-i list pods --as=jane", true, "yes"),
    ("auth can-i create ksvc --as=jane", true, "yes"),
    ("auth can-i create roles --as=jane", false, "no"),
    ("auth can-i --list --as=jane", true, "deployments.apps"),
    (
        "create role r --verb=get --resource=nodes --as=jane",
        false,
        "is forbidden",
    ),
    (
        "apply -f {root.yaml}",
        false,
        "violates PodSecurity \"baseline:latest\": hostPath volumes (volume \"v\")",
    ),
    (
        "apply -f {network.yaml}",
        false,
        "spec.hostNetwork: Forbidden: not supported by Kinglet",
    ),
];

#[test]
fn what_kubectl_says() {
    run(async {
        if program().is_none() {
            return not_run("there is no kubectl (cargo xtask peers builds one)");
        }
        let (instance, _api) = start().await?;
        let config = Path::new(&instance.ready.kubeconfig);
        for (name, text) in FILES {
            std::fs::write(instance.data.join(name), text)?;
        }
        for (command, succeeds, said) in COMMANDS {
            let mut arguments: Vec<String> = command.split(' ').map(str::to_owned).collect();
            for argument in &mut arguments {
                let file = argument
                    .strip_prefix('{')
                    .and_then(|rest| rest.strip_suffix(".yaml}"));
                if let Some(file) = file {
                    *argument = instance
                        .data
                        .join(format!("{file}.yaml"))
                        .display()
                        .to_string();
                }
            }
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = kubectl(config, &arguments).with_context(|| (*command).to_owned())?;
            let text = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            ensure!(
                output.status.success() == *succeeds && text.contains(said),
                "kubectl {command}: {}, without {said:?}:\n{text:.2000}",
                output.status
            );
        }
        Ok(())
    });
}
