//! The real kubectl against the real binary.

use std::path::Path;

use anyhow::ensure;
use kinglet_testkit::kubectl::{expect, program, run as kubectl};

use crate::{not_run, run, start};

const SERVICE: &str = r#"
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: hello
spec:
  template:
    spec:
      containers:
      - image: samples.kinglet/helloworld
        env:
        - {name: TARGET, value: "kubectl"}
"#;

#[test]
fn what_kubectl_users_do() {
    run(async {
        if program().is_none() {
            return not_run("there is no kubectl (cargo xtask peers builds one)");
        }
        let (instance, _api) = start().await?;
        let config = Path::new(&instance.ready.kubeconfig);
        let file = instance.data.join("service.yaml");
        std::fs::write(&file, SERVICE)?;
        let file = file.display().to_string();
        let said = |arguments: &[&str]| expect(config, arguments);

        ensure!(said(&["apply", "-f", &file])?.contains("created"));
        said(&[
            "wait",
            "--for=condition=Ready",
            "ksvc/hello",
            "--timeout=60s",
        ])?;
        // kubectl replaces lists of custom resources whole and says "configured"; nothing may come of it.
        said(&["apply", "-f", &file])?;
        let after = said(&[
            "get",
            "ksvc",
            "hello",
            "-o",
            "jsonpath={.metadata.generation} {.status.latestCreatedRevisionName}",
        ])?;
        ensure!(
            after == "1 hello-00001",
            "client-side apply twice made {after}"
        );
        ensure!(
            said(&["apply", "--server-side", "--force-conflicts", "-f", &file])?
                .contains("serverside-applied")
        );
        let table = said(&["get", "ksvc,configuration,revision,route,pods"])?;
        for column in [
            "URL",
            "LATESTCREATED",
            "LATESTREADY",
            "CONFIG NAME",
            "GENERATION",
            "ACTUAL REPLICAS",
            "DESIRED REPLICAS",
            "RESTARTS",
        ] {
            ensure!(table.contains(column), "no column {column} in\n{table}");
        }
        ensure!(table.contains("2/2"), "pods read 2/2:\n{table}");

        said(&["create", "namespace", "other"])?;
        said(&[
            "-n",
            "other",
            "create",
            "configmap",
            "map",
            "--from-literal=a=b",
        ])?;
        said(&[
            "-n",
            "other",
            "create",
            "secret",
            "generic",
            "secret",
            "--from-literal=a=b",
        ])?;
        said(&[
            "-n",
            "other",
            "create",
            "deployment",
            "web",
            "--image=samples.kinglet/helloworld",
            "--replicas=2",
        ])?;
        said(&[
            "-n",
            "other",
            "wait",
            "--for=condition=Available",
            "deployment/web",
            "--timeout=60s",
        ])?;
        said(&[
            "-n",
            "other",
            "rollout",
            "status",
            "deployment/web",
            "--timeout=60s",
        ])?;
        said(&["-n", "other", "scale", "deployment/web", "--replicas=1"])?;
        ensure!(said(&["explain", "ksvc.spec"])?.contains("traffic"));
        ensure!(said(&["explain", "pod.spec.containers"])?.contains("image"));
        said(&[
            "patch",
            "ksvc",
            "hello",
            "--type=merge",
            "-p",
            r#"{"metadata":{"annotations":{"a":"b"}}}"#,
        ])?;
        said(&[
            "patch",
            "ksvc",
            "hello",
            "--type=json",
            "-p",
            r#"[{"op":"remove","path":"/metadata/annotations/a"}]"#,
        ])?;
        said(&[
            "-n",
            "other",
            "patch",
            "deployment",
            "web",
            "-p",
            r#"{"spec":{"template":{"metadata":{"labels":{"x":"y"}}}}}"#,
        ])?;
        said(&["label", "ksvc", "hello", "team=a"])?;
        ensure!(said(&["get", "ksvc", "-l", "team=a", "-o", "name"])?.contains("hello"));
        ensure!(
            said(&[
                "logs",
                "-l",
                "serving.knative.dev/service=hello",
                "-c",
                "user-container"
            ])?
            .contains("listening")
        );
        ensure!(said(&["describe", "ksvc", "hello"])?.contains("Events"));
        ensure!(said(&["get", "events"])?.contains("Created"));
        ensure!(said(&["api-resources"])?.contains("serving.knative.dev/v1"));
        // 0: no difference, 1: some; anything above is a failure.
        let diff = kubectl(config, &["diff", "-f", &file])?;
        ensure!(
            matches!(diff.status.code(), Some(0 | 1)),
            "diff: {}",
            String::from_utf8_lossy(&diff.stderr)
        );

        let pod = said(&[
            "get",
            "pods",
            "-l",
            "serving.knative.dev/service=hello",
            "-o",
            "name",
        ])?;
        let pod = pod.lines().next().unwrap_or_default();
        ensure!(pod.starts_with("pod/"), "a pod runs: {pod:?}");
        let refused = kubectl(config, &["exec", pod, "--", "true"])?;
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(
            !refused.status.success() && stderr.contains("executable file not found in $PATH"),
            "a program that the image does not have is named: {stderr}"
        );
        let edit = std::process::Command::new(program().expect("checked above"))
            .args([
                "--kubeconfig",
                &instance.ready.kubeconfig,
                "edit",
                "ksvc",
                "hello",
            ])
            .env("KUBE_EDITOR", "sed -i s/kubectl/edited/")
            .output()?;
        ensure!(
            edit.status.success(),
            "{}",
            String::from_utf8_lossy(&edit.stderr)
        );

        said(&[
            "delete",
            "ksvc",
            "hello",
            "--cascade=foreground",
            "--timeout=60s",
        ])?;
        ensure!(
            !said(&["get", "deployments", "-o", "name"])?.contains("hello"),
            "foreground deletion leaves nothing"
        );
        said(&["delete", "namespace", "other", "--timeout=60s"])?;
        Ok(())
    });
}
