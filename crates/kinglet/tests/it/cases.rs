//! Small inputs that failed once (`tests/cases`), each applied to the real binary, and what is right.
//!
//! One instance serves them all: what one case breaks must not spoil the others. `in-flight.yaml` is in `in_flight`,
//! ports of Services are in `services`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kinglet_testkit::api::serving;
use kinglet_testkit::{Api, Instance, instance, until, web};
use serde_json::{Value, json};

use crate::{READY_MAX, run, setup};

const PODS: &str = "/api/v1/namespaces/default/pods";
const IMAGE: &str = "cases.local/busybox:1";
/// The samples under the names that Knative's documentation has for them.
const REGISTRIES: &str = r#"
[[registry]]
prefix = "gcr.io/knative-samples/helloworld-go"
location = "samples.kinglet/helloworld"
[[registry]]
prefix = "gcr.io/knative-samples/autoscale-go"
location = "samples.kinglet/autoscale"
"#;

struct Cases {
    instance: Instance,
    api: Api,
}

impl Cases {
    async fn start() -> anyhow::Result<Self> {
        let setup = kinglet_testkit::Setup {
            registries: Some(REGISTRIES.to_owned()),
            ..setup()
        };
        let instance = setup.start().await?;
        let api = Api::open(Path::new(&instance.ready.kubeconfig)).await?;
        Ok(Self { instance, api })
    }

    /// With the image of a shell.
    async fn with_busybox() -> anyhow::Result<Self> {
        let cases = Self::start().await?;
        import_busybox(&cases.instance.data)?;
        Ok(cases)
    }

    /// Applies every document of a file.
    async fn apply(&self, file: &str) -> anyhow::Result<()> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/cases")
            .join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for document in serde_saphyr::from_multiple::<Value>(&text)
            .map_err(|error| anyhow::anyhow!("{file}: {error}"))?
        {
            let collection = match document["kind"].as_str() {
                Some("Service") => serving("default", "services"),
                Some("Pod") => PODS.to_owned(),
                Some("ConfigMap") => "/api/v1/namespaces/default/configmaps".to_owned(),
                other => anyhow::bail!("{file} holds a {other:?}"),
            };
            self.api
                .apply(&collection, &document)
                .await
                .with_context(|| file.to_owned())?;
        }
        Ok(())
    }

    async fn ready(&self, service: &str) -> anyhow::Result<Value> {
        let path = format!("{}/{service}", serving("default", "services"));
        self.api.condition(&path, "Ready", "True", READY_MAX).await
    }

    async fn delete_service(&self, service: &str) -> anyhow::Result<()> {
        self.api
            .delete(&format!("{}/{service}", serving("default", "services")))
            .await?;
        self.no_pods(&format!("serving.knative.dev/service={service}"))
            .await
    }

    async fn no_pods(&self, selector: &str) -> anyhow::Result<()> {
        let path = format!("{PODS}?labelSelector={selector}");
        until(&format!("no pod of {selector}"), READY_MAX, || async {
            let pods = self.api.get(&path).await?;
            let left = pods["items"].as_array().map_or(0, Vec::len);
            ensure!(left == 0, "{left} pods");
            Ok(Some(()))
        })
        .await
    }

    async fn pod(&self, name: &str) -> anyhow::Result<Value> {
        self.api.get(&format!("{PODS}/{name}")).await
    }

    async fn gone(&self, name: &str, limit: Duration) -> anyhow::Result<()> {
        self.api.delete(&format!("{PODS}/{name}")).await?;
        until(&format!("pod {name} to be gone"), limit, || async {
            let found = self.api.find(&format!("{PODS}/{name}")).await?;
            ensure!(found.is_none(), "{}", found.unwrap_or_default()["status"]);
            Ok(Some(()))
        })
        .await
    }

    /// Reasons of the events about objects whose name begins so.
    async fn events(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let events = self.api.get("/api/v1/namespaces/default/events").await?;
        let about = |event: &&Value| {
            let name = event["involvedObject"]["name"].as_str().unwrap_or_default();
            name.starts_with(prefix)
        };
        let items = events["items"].as_array().into_iter().flatten();
        let texts = items.filter(about).map(|event| {
            format!(
                "{} {}",
                event["reason"].as_str().unwrap_or_default(),
                event["message"].as_str().unwrap_or_default()
            )
        });
        Ok(texts.collect())
    }

    /// It still serves, and ends as fast as ever with nothing dead below it.
    async fn stop(self) -> anyhow::Result<()> {
        self.api.get("/api/v1/namespaces/default").await?;
        // A helper is defunct for the moment between its end and its reaping.
        until(
            "an instance without defunct children",
            READY_MAX,
            || async {
                let defunct = defunct_children(self.instance.ready.pid)?;
                ensure!(defunct.is_empty(), "{defunct:?}");
                Ok(Some(()))
            },
        )
        .await?;
        self.instance.stop().await
    }
}

/// Imports the image of a shell as [`IMAGE`].
pub(crate) fn import_busybox(data: &Path) -> anyhow::Result<()> {
    let archive = busybox(data)?;
    let import = Command::new(&setup().binary)
        .args(["image", "import"])
        .arg(archive)
        .args([IMAGE, "--data"])
        .arg(data)
        .output()?;
    ensure!(
        import.status.success(),
        "{}",
        String::from_utf8_lossy(&import.stderr)
    );
    Ok(())
}

/// A root file system with busybox and its names, as an archive.
fn busybox(folder: &Path) -> anyhow::Result<PathBuf> {
    let root = folder.join("busybox");
    for name in ["bin", "tmp", "etc", "cm", "v"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    let program = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .context("busybox-static is not installed")?;
    std::fs::copy(program, root.join("bin/busybox"))?;
    let list = Command::new(program).arg("--list").output()?;
    for name in String::from_utf8_lossy(&list.stdout).lines() {
        let link = root.join("bin").join(name);
        if !link.exists() {
            std::os::unix::fs::symlink("busybox", link)?;
        }
    }
    let archive = folder.join("busybox.tar");
    let tar = Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status()?;
    ensure!(tar.success(), "tar: {tar}");
    std::fs::remove_dir_all(root)?;
    Ok(archive)
}

fn defunct_children(pid: u32) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((name, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let mut fields = rest.split_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        if state == Some("Z") && parent == Some(pid.to_string().as_str()) {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

fn condition<'a>(object: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == name)
        .with_context(|| format!("no condition {name}: {}", object["status"]))
}

#[test]
fn httpget_probes_of_small_complete_answers_succeed() {
    run(async {
        let cases = Cases::start().await?;
        cases.apply("httpget-probe.yaml").await?;
        cases.ready("httpget-probe").await?;
        let events = cases.events("httpget-probe").await?;
        ensure!(
            !events.iter().any(|event| event.starts_with("Unhealthy")),
            "{events:?}"
        );
        cases.stop().await
    });
}

#[test]
fn a_startup_probe_with_one_attempt_kills_nothing() {
    run(async {
        let cases = Cases::start().await?;
        cases.apply("startup-probe-once.yaml").await?;
        cases.ready("startup-once").await?;
        let events = cases.events("startup-once").await?;
        ensure!(
            !events.iter().any(|event| event.starts_with("Killing")),
            "{events:?}"
        );
        let pods = cases.api.get(PODS).await?;
        let restarts = pods["items"][0]["status"]["containerStatuses"][0]["restartCount"].clone();
        ensure!(restarts == 0, "{restarts} restarts");
        cases.stop().await
    });
}

#[test]
fn exec_probes_that_time_out_leave_nothing() {
    run(async {
        let cases = Cases::with_busybox().await?;
        cases.apply("exec-probe-timeout.yaml").await?;
        let selector = "serving.knative.dev/service=exec-timeout";
        until("a probe that timed out", READY_MAX, || async {
            let events = cases.events("exec-timeout").await?;
            ensure!(
                events.iter().any(|event| event.starts_with("Unhealthy")),
                "{events:?}"
            );
            Ok(Some(()))
        })
        .await?;
        cases
            .api
            .delete(&format!("{}/exec-timeout", serving("default", "services")))
            .await?;
        cases.no_pods(selector).await?;
        cases.stop().await
    });
}

#[test]
fn a_class_that_nobody_serves_is_said() {
    run(async {
        let cases = Cases::start().await?;
        cases.apply("unserved-class.yaml").await?;
        until("the condition", READY_MAX, || async {
            let mut texts = String::new();
            for path in [
                serving("default", "revisions"),
                "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/default/podautoscalers"
                    .to_owned(),
            ] {
                for item in cases.api.get(&path).await?["items"]
                    .as_array()
                    .into_iter()
                    .flatten()
                {
                    texts.push_str(&item["status"]["conditions"].to_string());
                }
            }
            ensure!(texts.contains("carrots.example.com"), "{texts}");
            Ok(Some(()))
        })
        .await?;
        cases.stop().await
    });
}

#[test]
fn a_missing_secret_is_named_and_heals() {
    run(async {
        let cases = Cases::start().await?;
        cases.apply("missing-volume-source.yaml").await?;
        let revision = format!("{}/no-secret-00001", serving("default", "revisions"));
        until("the Secret's name in a condition", READY_MAX, || async {
            let found = cases.api.get(&revision).await?;
            let text = found["status"]["conditions"].to_string();
            ensure!(text.contains("absent"), "{text}");
            Ok(Some(()))
        })
        .await?;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "absent"}, "stringData": {"a": "b"}});
        cases
            .api
            .create("/api/v1/namespaces/default/secrets", &secret)
            .await?;
        cases.ready("no-secret").await?;
        cases.stop().await
    });
}

#[test]
fn a_tag_that_makes_a_long_label_is_the_routes_error() {
    run(async {
        let cases = Cases::start().await?;
        cases.apply("long-tag.yaml").await?;
        let name = "a23456789-b23456789-c23456789-d23456789-e23456789-f2345678";
        let route = format!("{}/{name}", serving("default", "routes"));
        let object = cases
            .api
            .condition(&route, "AllTrafficAssigned", "False", READY_MAX)
            .await?;
        let assigned = condition(&object, "AllTrafficAssigned")?;
        let message = assigned["message"].as_str().unwrap_or_default();
        ensure!(
            assigned["reason"] == "ErrorConfig"
                && message.contains("invalid domain name")
                && message.contains("must be no more than 63 characters"),
            "{assigned}"
        );
        let service = format!("{}/{name}", serving("default", "services"));
        let object = cases
            .api
            .condition(&service, "RoutesReady", "False", READY_MAX)
            .await?;
        let said = condition(&object, "RoutesReady")?;
        ensure!(said.to_string().contains("invalid domain name"), "{said}");
        cases.stop().await
    });
}

#[test]
fn no_byte_of_a_device_is_read() {
    run(async {
        let cases = Cases::with_busybox().await?;
        cases.apply("device-in-volume.yaml").await?;
        until("the pod to end", READY_MAX, || async {
            let pod = cases.pod("device").await?;
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            ensure!(
                ["Succeeded", "Failed"].contains(&phase),
                "{}",
                pod["status"]
            );
            Ok(Some(()))
        })
        .await?;
        let log = Command::new(&setup().binary)
            .args(["logs", "device", "--data"])
            .arg(&cases.instance.data)
            .output()?;
        let log = String::from_utf8_lossy(&log.stdout).into_owned();
        // `od -c` prints offsets only for what it read; everything else is the refusal of mknod, open or read.
        ensure!(!log.contains("0000020"), "bytes of a device: {log}");
        ensure!(
            log.contains("denied") || log.contains("not permitted"),
            "{log}"
        );
        cases.stop().await
    });
}

#[test]
fn links_in_a_configmap_volume_lead_nowhere() {
    run(async {
        let cases = Cases::with_busybox().await?;
        // The manifest names this path; the test leaves it as it found it.
        let outside = Path::new("/tmp/outside");
        let existed = outside.exists();
        std::fs::create_dir_all(outside)?;
        let witness = outside.join(format!("witness-{}", std::process::id()));
        std::fs::write(&witness, "precious")?;
        let before = listing(outside)?;
        let outcome = swap_links(&cases).await;
        let after = listing(outside);
        let kept = std::fs::read_to_string(&witness).unwrap_or_default();
        let _ = std::fs::remove_file(&witness);
        if !existed {
            let _ = std::fs::remove_dir(outside);
        }
        outcome?;
        ensure!(
            after? == before && kept == "precious",
            "/tmp/outside was changed"
        );
        cases.stop().await
    });
}

async fn swap_links(cases: &Cases) -> anyhow::Result<()> {
    cases.apply("volume-link-swap.yaml").await?;
    until("the pod to run", READY_MAX, || async {
        let pod = cases.pod("swap").await?;
        let state = pod["status"]["containerStatuses"][0].to_string();
        ensure!(
            state.contains("running") || state.contains("terminated"),
            "{}",
            pod["status"]
        );
        Ok(Some(()))
    })
    .await?;
    for number in 2..=4 {
        cases
            .api
            .merge(
                "/api/v1/namespaces/default/configmaps/swap",
                &json!({"data": {"file": number.to_string()}}),
            )
            .await?;
        // The volume follows in its own time; a moment for each change.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    cases.gone("swap", READY_MAX).await
}

fn listing(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

#[test]
fn deep_directories_end_nothing() {
    run(async {
        let cases = Cases::with_busybox().await?;
        cases.apply("deep-directories.yaml").await?;
        until("the directories", Duration::from_secs(240), || async {
            let pod = cases.pod("deep").await?;
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            ensure!(
                ["Succeeded", "Failed"].contains(&phase),
                "{}",
                pod["status"]
            );
            Ok(Some(()))
        })
        .await?;
        cases.gone("deep", READY_MAX).await?;
        // Alive, and able to start the next pod while space is given back.
        cases.apply("httpget-probe.yaml").await?;
        cases.ready("httpget-probe").await?;
        let answer = web::get(
            cases.instance.gateway(),
            "httpget-probe.default.localhost",
            "/",
        )
        .await?;
        ensure!(answer.status == 200, "{answer:?}");
        let data = cases.instance.data.clone();
        let pods = data.join("node");
        until(
            "space to be given back",
            Duration::from_secs(120),
            || async {
                let deep = std::fs::read_dir(&pods)
                    .map(|entries| {
                        let names = entries.flatten().map(|entry| entry.file_name());
                        names
                            .filter(|name| name.to_string_lossy().contains("trash"))
                            .count()
                    })
                    .unwrap_or(0);
                ensure!(deep == 0 || is_empty(&pods), "{deep} trees are still there");
                Ok(Some(()))
            },
        )
        .await?;
        cases.delete_service("httpget-probe").await?;
        cases.stop().await
    });
}

/// Whether the folders for removed trees hold nothing.
fn is_empty(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().contains("trash"))
        .all(|entry| {
            std::fs::read_dir(entry.path()).is_ok_and(|mut entries| entries.next().is_none())
        })
}

#[test]
fn probes_and_hooks_do_not_reach_the_host() {
    run(async {
        let cases = Cases::start().await?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        // The same manifest with a free port, and the other spellings of the host's own addresses.
        let hosts = [
            "127.0.0.1",
            "localhost",
            "0.0.0.0",
            "::1",
            "::ffff:127.0.0.1",
            "127.1",
            "169.254.169.254",
        ];
        for (number, host) in hosts.into_iter().enumerate() {
            let get = json!({"host": host, "port": port, "path": "/"});
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("to-host-{number}")},
                "spec": {"containers": [{"name": "c", "image": "gcr.io/knative-samples/helloworld-go",
                    "readinessProbe": {"httpGet": get, "periodSeconds": 1}, "lifecycle": {"postStart": {"httpGet": get}}}]}});
            cases.api.create(PODS, &pod).await?;
        }
        let connected = tokio::select! {
            accepted = listener.accept() => Some(accepted?.1),
            said = until("an event of each pod", READY_MAX, || async {
                for (number, host) in hosts.iter().enumerate() {
                    let events = cases.events(&format!("to-host-{number}")).await?;
                    ensure!(
                        events.iter().any(|event| event.starts_with("Unhealthy") || event.starts_with("FailedPostStartHook")),
                        "{host}: {events:?}"
                    );
                }
                Ok(Some(()))
            }) => { said?; None }
        };
        ensure!(connected.is_none(), "a connection from {connected:?}");
        cases.stop().await
    });
}

#[test]
fn a_small_image_is_imported_and_its_name_is_free() {
    run(async {
        let cases = Cases::with_busybox().await?;
        let scratch = instance::scratch("import");
        std::fs::create_dir_all(&scratch)?;
        let archive = busybox(&scratch)?;
        let refused = Command::new(&setup().binary)
            .args(["image", "import"])
            .arg(&archive)
            .args(["samples.kinglet/helloworld", "--data"])
            .arg(&cases.instance.data)
            .output()?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let _ = std::fs::remove_dir_all(&scratch);
        ensure!(
            !refused.status.success() && said.contains("cannot be replaced"),
            "{said}"
        );
        cases.stop().await
    });
}
