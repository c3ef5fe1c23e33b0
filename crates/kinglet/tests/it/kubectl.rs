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
/// Columns of the tables of Knative's kinds and of Pods.
const COLUMNS: [&str; 8] = [
    "URL",
    "LATESTCREATED",
    "LATESTREADY",
    "CONFIG NAME",
    "GENERATION",
    "ACTUAL REPLICAS",
    "DESIRED REPLICAS",
    "RESTARTS",
];

/// A user with a kubeconfig.
struct User<'a>(&'a Path);

impl User<'_> {
    /// What kubectl says to a line of words without spaces in them; it must succeed.
    fn said(&self, line: &str) -> anyhow::Result<String> {
        expect(self.0, &line.split(' ').collect::<Vec<_>>())
    }
}

#[test]
fn what_kubectl_users_do() {
    run(async {
        if program().is_none() {
            return not_run("there is no kubectl (cargo xtask peers builds one)");
        }
        let (instance, _api) = start().await?;
        let user = User(Path::new(&instance.ready.kubeconfig));
        let file = instance.data.join("service.yaml");
        std::fs::write(&file, SERVICE)?;
        let file = file.display().to_string();
        applies_and_lists(&user, &file)?;
        runs_a_deployment(&user)?;
        patches_and_reads(&user, &file)?;
        executes_and_edits(&user)?;
        user.said("delete ksvc hello --cascade=foreground --timeout=60s")?;
        ensure!(
            !user.said("get deployments -o name")?.contains("hello"),
            "foreground deletion leaves nothing"
        );
        user.said("delete namespace other --timeout=60s")?;
        Ok(())
    });
}

fn applies_and_lists(user: &User<'_>, file: &str) -> anyhow::Result<()> {
    let apply = format!("apply -f {file}");
    ensure!(user.said(&apply)?.contains("created"));
    user.said("wait --for=condition=Ready ksvc/hello --timeout=60s")?;
    // kubectl replaces lists of custom resources whole and says "configured"; nothing may come of it.
    user.said(&apply)?;
    let after = user.said(
        "get ksvc hello -o jsonpath={.metadata.generation},{.status.latestCreatedRevisionName}",
    )?;
    ensure!(
        after == "1,hello-00001",
        "client-side apply twice made {after}"
    );
    let said = user.said(&format!("{apply} --server-side --force-conflicts"))?;
    ensure!(said.contains("serverside-applied"), "{said}");
    let table = user.said("get ksvc,configuration,revision,route,pods")?;
    for column in COLUMNS {
        ensure!(table.contains(column), "no column {column} in\n{table}");
    }
    ensure!(table.contains("2/2"), "pods read 2/2:\n{table}");
    Ok(())
}

fn runs_a_deployment(user: &User<'_>) -> anyhow::Result<()> {
    user.said("create namespace other")?;
    for line in [
        "create configmap map --from-literal=a=b",
        "create secret generic secret --from-literal=a=b",
        "create deployment web --image=samples.kinglet/helloworld --replicas=2",
        "wait --for=condition=Available deployment/web --timeout=60s",
        "rollout status deployment/web --timeout=60s",
        "scale deployment/web --replicas=1",
        r#"patch deployment web -p {"spec":{"template":{"metadata":{"labels":{"x":"y"}}}}}"#,
    ] {
        user.said(&format!("-n other {line}"))?;
    }
    Ok(())
}

fn patches_and_reads(user: &User<'_>, file: &str) -> anyhow::Result<()> {
    user.said(r#"patch ksvc hello --type=merge -p {"metadata":{"annotations":{"a":"b"}}}"#)?;
    user.said(
        r#"patch ksvc hello --type=json -p [{"op":"remove","path":"/metadata/annotations/a"}]"#,
    )?;
    user.said("label ksvc hello team=a")?;
    for (line, wanted) in [
        ("explain ksvc.spec", "traffic"),
        ("explain pod.spec.containers", "image"),
        ("get ksvc -l team=a -o name", "hello"),
        (
            "logs -l serving.knative.dev/service=hello -c user-container",
            "listening",
        ),
        ("describe ksvc hello", "Events"),
        ("get events", "Created"),
        ("api-resources", "serving.knative.dev/v1"),
    ] {
        let said = user.said(line)?;
        ensure!(said.contains(wanted), "{line}: no {wanted} in\n{said}");
    }
    // 0: no difference, 1: some; anything above is a failure.
    let diff = kubectl(user.0, &["diff", "-f", file])?;
    ensure!(
        matches!(diff.status.code(), Some(0 | 1)),
        "diff: {}",
        String::from_utf8_lossy(&diff.stderr)
    );
    Ok(())
}

fn executes_and_edits(user: &User<'_>) -> anyhow::Result<()> {
    let pod = user.said("get pods -l serving.knative.dev/service=hello -o name")?;
    let pod = pod.lines().next().unwrap_or_default();
    ensure!(pod.starts_with("pod/"), "a pod runs: {pod:?}");
    let refused = kubectl(user.0, &["exec", pod, "--", "true"])?;
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.status.success() && stderr.contains("executable file not found in $PATH"),
        "a program that the image does not have is named: {stderr}"
    );
    let edit = std::process::Command::new(program().expect("the test is not run without"))
        .arg("--kubeconfig")
        .arg(user.0)
        .args(["edit", "ksvc", "hello"])
        .env("KUBE_EDITOR", "sed -i s/kubectl/edited/")
        .output()?;
    ensure!(
        edit.status.success(),
        "{}",
        String::from_utf8_lossy(&edit.stderr)
    );
    Ok(())
}
