//! The real kubectl and Jobs: made, awaited, read and deleted with their Pods; and kinds of several versions.

use std::path::Path;

use anyhow::ensure;
use kinglet_testkit::kubectl::{expect, program};

use crate::{not_run, run, start};

/// One ends well (its liveness probe stops it, and it ends with 0 then), one does not.
const JOBS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: done}
spec:
  completions: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: OnFailure
      containers:
      - name: c
        image: samples.kinglet/helloworld
        livenessProbe: {httpGet: {path: /, port: 9}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: c, image: samples.kinglet/helloworld, command: [/sample], args: [nothing]}
"#;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: birds.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Bird, plural: birds}
  versions:
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {song: {type: string, description: what it sings}}}}}}
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {song: {type: string, description: its melody}}}}}}
"#;

const BIRD: &str =
    "apiVersion: example.com/v1beta1\nkind: Bird\nmetadata: {name: wren}\nspec: {song: la}\n";

#[test]
fn what_kubectl_users_do_with_jobs_and_versions() {
    run(async {
        if program().is_none() {
            return not_run("there is no kubectl (cargo xtask peers builds one)");
        }
        let (instance, _api) = start().await?;
        let config = Path::new(&instance.ready.kubeconfig);
        let file = |name: &str, text: &str| -> anyhow::Result<String> {
            let file = instance.data.join(name);
            std::fs::write(&file, text)?;
            Ok(file.display().to_string())
        };
        let (jobs, definition, bird) = (
            file("jobs.yaml", JOBS)?,
            file("definition.yaml", DEFINITION)?,
            file("bird.yaml", BIRD)?,
        );
        for (line, wanted) in [
            (format!("apply -f {jobs}"), "job.batch/fails created"),
            (
                "create job made --image=samples.kinglet/helloworld".to_owned(),
                "job.batch/made created",
            ),
            (
                "wait --for=condition=complete job/done --timeout=120s".to_owned(),
                "condition met",
            ),
            (
                "wait --for=condition=failed job/fails --timeout=120s".to_owned(),
                "condition met",
            ),
            ("logs job/fails".to_owned(), "usage: sample NAME"),
            ("logs -l job-name=done".to_owned(), "listening"),
            ("get job done".to_owned(), "Complete   2/2"),
            ("get job fails".to_owned(), "Failed   0/1"),
            ("describe job done".to_owned(), "Job completed"),
            (
                "describe job fails".to_owned(),
                "Job has reached the specified backoff limit",
            ),
            (
                "explain job.spec.completions".to_owned(),
                "FIELD: completions <integer>",
            ),
            (
                "delete job made done fails".to_owned(),
                "job.batch \"made\" deleted",
            ),
            (
                "wait --for=delete pod -l batch.kubernetes.io/job-name --timeout=120s".to_owned(),
                "",
            ),
            ("get jobs,pods".to_owned(), ""),
            (format!("apply -f {definition}"), "created"),
            (format!("apply -f {bird}"), "created"),
            (
                "get birds wren -o yaml".to_owned(),
                "apiVersion: example.com/v1\n",
            ),
            (
                "get birds.v1beta1.example.com wren -o yaml".to_owned(),
                "apiVersion: example.com/v1beta1\n",
            ),
            (
                format!("apply --server-side --force-conflicts -f {bird}"),
                "serverside-applied",
            ),
            ("explain bird.spec.song".to_owned(), "its melody"),
            (
                "explain bird.spec.song --api-version=example.com/v1beta1".to_owned(),
                "what it sings",
            ),
            (
                "api-resources --api-group=example.com".to_owned(),
                "example.com/v1 ",
            ),
            ("delete crd birds.example.com".to_owned(), "deleted"),
        ] {
            let said = expect(config, &line.split(' ').collect::<Vec<_>>())?;
            ensure!(said.contains(wanted), "{line}: no {wanted:?} in\n{said}");
        }
        Ok(())
    });
}
