//! Replays recorded inputs against Kinglet and lists every difference from what real Knative did.
//!
//! Object chains: each scenario's `apply-*.yaml` in the order of its timeline; at each snapshot the objects of the
//! namespace are compared field by field, with what differs by nature (times, uids, addresses, random suffixes) made
//! equal, and known exceptions listed with their reason; so are the tables of
//! kubectl, the words of refusals and the Events. Admission: each input created with `dryRun=All`.

mod admission;
mod differ;
mod events;
mod exceptions;
mod failing;
mod names;
mod scenario;
mod snapshot;
mod tables;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;
use kinglet_testkit::{Api, Setup};
use serde_json::{Value, json};

const REGISTRIES: &str = r#"
[[registry]]
prefix = "kn.local/helloworld"
location = "samples.kinglet/helloworld"
[[registry]]
prefix = "kn.local/autoscale"
location = "samples.kinglet/autoscale"
[[registry]]
prefix = "kn.local/readiness"
location = "samples.kinglet/helloworld"
"#;

/// Scenarios whose chain is compared.
const SCENARIOS: [&str; 10] = [
    "01-ready",
    "02-zero-and-wake",
    "03-private",
    "06-crash-exit",
    "07-probe-fails",
    "08-quota",
    "09-unschedulable",
    "10-scale-bounds",
    "13-traffic-errors",
    "15-pod-templates",
];

/// Which recording.
#[derive(Args)]
pub(crate) struct Compare {
    /// Folder with the recorded scenarios and admission.yaml
    folder: PathBuf,
    /// Only scenarios (or `admission`, `configmaps`) whose name contains this; also ones that are not compared otherwise
    #[arg(long)]
    only: Option<String>,
    /// Differences shown of each part
    #[arg(long, default_value_t = 200)]
    most: usize,
    /// List the differences that are accepted, too, with their reasons
    #[arg(long)]
    exceptions: bool,
}

/// How much is printed.
#[derive(Clone, Copy)]
struct Show {
    most: usize,
    exceptions: bool,
}

pub(crate) async fn run(args: &Compare) -> anyhow::Result<()> {
    let chosen = |name: &str| args.only.as_deref().is_none_or(|only| name.contains(only));
    let binary = crate::release_binary()?;
    let setup = Setup {
        registries: Some(REGISTRIES.to_owned()),
        ..Setup::of(&binary)
    };
    let instance = setup.start().await?;
    let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
    configure(&api).await?;
    if chosen("06-crash-exit") {
        failing::import(&binary, &instance)?;
    }
    let mut differences = 0;
    for name in recorded(&args.folder)? {
        let compared = SCENARIOS.contains(&name.as_str()) || args.only.is_some();
        if !compared || !chosen(&name) {
            continue;
        }
        differences += scenario::replay(
            &api,
            &instance,
            &args.folder.join(&name),
            Show {
                most: args.most,
                exceptions: args.exceptions,
            },
        )
        .await
        .with_context(|| format!("replaying {name}"))?;
    }
    let mut verdicts_ok = true;
    for (name, object) in [("admission", true), ("configmaps", false)] {
        let file = args.folder.join(format!("{name}.yaml"));
        if chosen(name) && file.exists() {
            verdicts_ok &= admission::replay(&api, &file, object, args.most).await?;
        }
    }
    println!("\n{differences} differences in objects, tables, refusals and Events");
    instance.stop().await?;
    ensure!(
        verdicts_ok,
        "fewer than nine in ten admission cases get the recorded verdict"
    );
    ensure!(
        differences == 0,
        "what happened differs in {differences} places"
    );
    Ok(())
}

/// The scenarios of a folder, in the order of their numbers.
fn recorded(folder: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.path().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    for name in SCENARIOS {
        ensure!(
            names.iter().any(|there| there == name),
            "{} has no recording {name}",
            folder.display()
        );
    }
    Ok(names)
}

/// The recording's set-up (traces' README).
async fn configure(api: &Api) -> anyhow::Result<()> {
    let maps: [(&str, Value); 3] = [
        (
            "config-deployment",
            json!({"registries-skipping-tag-resolving": "kind.local,ko.local,dev.local,kn.local"}),
        ),
        ("config-domain", json!({"example.com": ""})),
        (
            "config-autoscaler",
            json!({"scale-to-zero-grace-period": "10s", "allow-zero-initial-scale": "true"}),
        ),
    ];
    for (name, data) in maps {
        api.merge(
            &format!("/api/v1/namespaces/knative-serving/configmaps/{name}"),
            &json!({"data": data}),
        )
        .await
        .with_context(|| format!("setting {name}"))?;
    }
    Ok(())
}

/// Documents of a YAML file.
fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    kinglet_api::yaml::documents(text).map_err(|error| anyhow::anyhow!("{error}"))
}
