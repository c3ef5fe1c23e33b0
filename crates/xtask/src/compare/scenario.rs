//! One recorded scenario: its steps in the order of its timeline, and the objects at each snapshot.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use kinglet_testkit::{Api, Instance, kubectl, web};
use serde_json::json;

use super::events::events;
use super::snapshot::snapshot;
use super::{Show, documents, exceptions, tables};

/// Answers how many differences are left over all snapshots, refusals and Events.
pub(crate) async fn replay(
    api: &Api,
    instance: &Instance,
    folder: &Path,
    show: Show,
) -> anyhow::Result<usize> {
    let scenario = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let about = std::fs::read_to_string(folder.join("about.txt")).unwrap_or_default();
    println!("\n== {scenario}: {}", about.trim());
    let namespace = first_namespace(folder)?;
    api.create(
        "/api/v1/namespaces",
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
    )
    .await?;
    if scenario == "08-quota" {
        forbid_pods(api, &namespace).await?;
    }
    let mut left = 0;
    let recording = Recording {
        scenario: &scenario,
        namespace: &namespace,
        folder,
        show,
    };
    for step in steps(
        &std::fs::read_to_string(folder.join("timeline.txt")).context("reading timeline.txt")?,
    ) {
        left += recording.play(api, instance, &step).await?;
    }
    left += events(api, &namespace, &folder.join("events.txt"), show).await?;
    api.delete(&format!("/api/v1/namespaces/{namespace}"))
        .await?;
    Ok(left)
}

/// What the steps of one recording share.
struct Recording<'a> {
    scenario: &'a str,
    namespace: &'a str,
    folder: &'a Path,
    show: Show,
}

impl Recording<'_> {
    /// Does one step again; answers how many differences it leaves.
    async fn play(&self, api: &Api, instance: &Instance, step: &Step) -> anyhow::Result<usize> {
        let Self {
            scenario,
            namespace,
            folder,
            show,
        } = self;
        let what = &step.what;
        let mut left = 0;
        if let Some(file) = what.strip_prefix("kubectl apply -f ") {
            left += apply(
                instance,
                namespace,
                scenario,
                &folder.join(file),
                step.refusal.as_deref(),
            )?;
        } else if let Some(file) = what.strip_prefix("snapshot ") {
            left += snapshot(api, namespace, scenario, &folder.join(file), *show).await?;
            left += tables::compare(
                Path::new(&instance.ready.kubeconfig),
                namespace,
                &folder.join(
                    file.replace("objects-", "kubectl-get-")
                        .replace(".yaml", ".txt"),
                ),
            )?;
        } else if what == "label removed" {
            api.merge(
                &format!("/apis/serving.knative.dev/v1/namespaces/{namespace}/services/hello"),
                &json!({"metadata": {"labels": {"networking.knative.dev/visibility": null}}}),
            )
            .await?;
        } else if what.starts_with("request through") {
            let began = Instant::now();
            let answer = web::get(
                instance.gateway(),
                &format!("hello.{namespace}.example.com"),
                "/",
            )
            .await?;
            println!(
                "   request answered {} after {:.0} ms",
                answer.status,
                began.elapsed().as_secs_f64() * 1e3
            );
            left += usize::from(answer.status != 200);
        }
        Ok(left)
    }
}

/// The quota that was there before the recording began.
async fn forbid_pods(api: &Api, namespace: &str) -> anyhow::Result<()> {
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    });
    api.create(
        &format!("/api/v1/namespaces/{namespace}/resourcequotas"),
        &quota,
    )
    .await?;
    Ok(())
}

/// One line of the recording that is somebody's doing, and what the server said if it refused.
struct Step {
    what: String,
    refusal: Option<String>,
}

fn steps(timeline: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut refused = false;
    for line in timeline.lines() {
        if let Some((_, what)) = line.split_once("-------- ") {
            match (what.strip_prefix("refused: "), steps.last_mut()) {
                (Some(text), Some(step)) => step.refusal = Some(text.to_owned()),
                _ => steps.push(Step {
                    what: what.trim().to_owned(),
                    refusal: None,
                }),
            }
            refused = what.starts_with("refused: ");
        } else if timed(line) {
            refused = false;
        } else if refused
            && let Some(Step {
                refusal: Some(refusal),
                ..
            }) = steps.last_mut()
        {
            refusal.push('\n');
            refusal.push_str(line);
        }
    }
    steps
}

/// Whether a line begins as entries of the timeline do: `  1.04s …`.
fn timed(line: &str) -> bool {
    line.trim_start()
        .split_once("s ")
        .is_some_and(|(seconds, _)| seconds.parse::<f64>().is_ok())
}

/// Applies a file as the recording did; answers 1 if the verdict or its words differ.
fn apply(
    instance: &Instance,
    namespace: &str,
    scenario: &str,
    file: &Path,
    refusal: Option<&str>,
) -> anyhow::Result<usize> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let known = exceptions::accepted(scenario, &name);
    let path = file.display().to_string();
    let mut arguments = vec!["-n", namespace, "apply", "-f", &path];
    if known.is_some() {
        arguments.push("--dry-run=server");
    }
    let output = kubectl::run(Path::new(&instance.ready.kubeconfig), &arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    match (output.status.success(), refusal, known) {
        (true, None, None) => return Ok(0),
        (true, Some(_), Some(reason)) => {
            println!("   {name}: accepted, refused in the recording: {reason}");
            return Ok(0);
        }
        (false, Some(recorded), None) if sentence(recorded) == sentence(&said) => return Ok(0),
        (false, Some(recorded), None) => println!(
            "   {name}: refused with other words\n     expected {}\n     got      {}",
            sentence(recorded).join("\n              "),
            sentence(&said).join("\n              ")
        ),
        (true, Some(recorded), None) => println!(
            "   {name}: accepted, expected: {}",
            sentence(recorded).join("\n")
        ),
        (false, None, _) => println!("   {name}: refused: {}", said.trim()),
        (_, _, Some(_)) => println!(
            "   {name}: no longer the exception that it is listed as: {}",
            said.trim()
        ),
    }
    Ok(1)
}

/// What the server said, without what kubectl says around it. Whole structs among the details are left out: upstream
/// prints them in Go's notation, we as JSON.
fn sentence(said: &str) -> Vec<&str> {
    let begin = said.find("admission webhook").unwrap_or(0);
    let whole = |line: &&str| {
        ["\"&", "\"{"].into_iter().any(|start| {
            line.trim_start_matches(['\t', '-', '+', ':', ' '])
                .starts_with(start)
        })
    };
    said[begin..]
        .trim_end()
        .lines()
        .filter(|line| !whole(line))
        .collect()
}

fn first_namespace(folder: &Path) -> anyhow::Result<String> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("objects-"))
        })
        .collect();
    files.sort();
    let text = std::fs::read_to_string(files.first().context("the scenario has no snapshot")?)?;
    let objects = documents(&text)?;
    Ok(objects[0]["metadata"]["namespace"]
        .as_str()
        .context("an object has a namespace")?
        .to_owned())
}
