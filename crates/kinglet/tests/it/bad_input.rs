//! What a beginner gets wrong is said in words, and nothing is half-applied.

use std::process::Command;

use anyhow::ensure;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::instance;
use serde_json::{Value, json};

use crate::checks::{self, System};
use crate::{run, setup, start};

#[test]
fn wrong_objects_are_refused_by_field() {
    run(async {
        let (_instance, api) = start().await?;
        let services = serving("default", "services");
        let cases: [(&str, Value, &str); 4] = [
            (
                "/spec/traffic",
                json!([{"latestRevision": true, "percent": 50}]),
                "Traffic targets sum to 50, want 100",
            ),
            ("/spec/template/spec/containers/0/image", json!(""), "image"),
            (
                "/spec/template/spec/containerConcurrency",
                json!("many"),
                "containerConcurrency",
            ),
            (
                "/spec/template/metadata/annotations",
                json!({"autoscaling.knative.dev/min-scale": "-1"}),
                "min-scale",
            ),
        ];
        for (pointer, value, expected) in cases {
            let mut service = sample_service("bad", "default", "helloworld");
            set(&mut service, pointer, value);
            let error = api
                .create(&services, &service)
                .await
                .err()
                .map(|error| format!("{error:#}"))
                .unwrap_or_default();
            ensure!(
                error.contains(expected),
                "{pointer}: {error:?} does not mention {expected:?}"
            );
        }
        let list = api.get(&services).await?;
        ensure!(
            list["items"].as_array().is_some_and(Vec::is_empty),
            "nothing is stored: {list}"
        );
        Ok(())
    });
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut slot = object;
    for key in pointer.split('/').skip(1) {
        slot = match key.parse::<usize>() {
            Ok(index) => &mut slot[index],
            Err(_) => &mut slot[key],
        };
    }
    *slot = value;
}

#[test]
fn failures_show_in_conditions_within_seconds() {
    run(async {
        let (instance, api) = start().await?;
        checks::failures(System {
            api: &api,
            instance: &instance,
        })
        .await
    });
}

#[test]
fn a_start_that_cannot_work_says_why() {
    run(async {
        let (instance, _api) = start().await?;
        let port = instance
            .ready
            .api_url
            .rsplit(':')
            .next()
            .unwrap_or_default()
            .trim_end_matches('/')
            .to_owned();
        let data = instance::scratch("refused");
        let refused = |command: &mut Command| -> anyhow::Result<String> {
            let output = command.output()?;
            ensure!(!output.status.success(), "it started");
            Ok(String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let mut taken = Command::new(&setup().binary);
        taken
            .args(["up", "--http-port", "0", "--api-port", &port, "--data"])
            .arg(&data)
            .arg("--kubeconfig")
            .arg(data.join("k"));
        let said = refused(&mut taken)?;
        ensure!(
            said.contains(&format!("port {port}")) && said.contains("--api-port"),
            "{said}"
        );

        let said = refused(&mut setup().command(&instance.data))?;
        ensure!(said.contains("in use by another process"), "{said}");

        // A copy that anybody may run: the build's own folder may be closed to others.
        let open = instance::scratch("nobody");
        std::fs::create_dir_all(&open)?;
        let copy = open.join("kinglet");
        std::fs::copy(&setup().binary, &copy)?;
        for path in [&open, &copy] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        let mut nobody = Command::new("setpriv");
        nobody
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy);
        nobody
            .args(["up", "--api-port", "0", "--http-port", "0", "--data"])
            .arg(open.join("data"));
        let said = refused(&mut nobody)?;
        ensure!(said.contains("Error: ") && said.contains("root"), "{said}");

        let broken = instance::scratch("broken");
        std::fs::create_dir_all(broken.join("store"))?;
        std::fs::write(broken.join("store/state.db"), vec![7_u8; 8192])?;
        let said = refused(&mut setup().command(&broken))?;
        ensure!(
            said.contains("state.db") && said.contains("damaged"),
            "{said}"
        );
        for folder in [data, broken, open] {
            let _ = std::fs::remove_dir_all(folder);
        }
        Ok(())
    });
}
