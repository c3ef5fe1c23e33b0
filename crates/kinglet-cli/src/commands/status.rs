//! `status`: what runs, where, how healthy.

use std::fmt::Write as _;

use serde_json::json;

use crate::args::StatusArgs;
use crate::control::{self, KindMemory, Status};
use crate::{location, table};

pub(crate) async fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let data = location::data_directory(&args.data);
    let status: Status = control::call(
        &location::control_socket(&data),
        http::Method::GET,
        "/status",
        &json!({}),
    )
    .await?;
    if args.output.is_some() {
        crate::screen::say!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        crate::screen::show!("{}", show(&status, args));
    }
    anyhow::ensure!(
        status.health.iter().all(|part| part.healthy),
        "not everything is healthy"
    );
    Ok(())
}

fn show(status: &Status, args: &StatusArgs) -> String {
    let addresses = &status.addresses;
    let uptime = status.uptime_seconds;
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row(
            "Kinglet",
            format!(
                "{} (pid {}), up {}h{:02}m{:02}s, {} MB resident",
                status.version,
                addresses.pid,
                uptime / 3600,
                uptime / 60 % 60,
                uptime % 60,
                (status.resident_bytes + 500_000) / 1_000_000
            ),
        ),
        row("Kubernetes API", addresses.api_url.clone()),
        row(
            "Services",
            addresses
                .http_url
                .clone()
                .unwrap_or_else(|| "not served".to_owned()),
        ),
        row(
            "Services, https",
            match &addresses.https_url {
                Some(url) => format!("{url}{}", crate::commands::https_words(addresses)),
                None => "not served".to_owned(),
            },
        ),
        row("Domain", addresses.domain.clone()),
        row("Kubeconfig", addresses.kubeconfig.clone()),
        row("Data", status.data.clone()),
        row(
            "Knative Services",
            format!("{} ({} ready)", status.services, status.services_ready),
        ),
        row(
            "Pods",
            format!("{} ({} ready)", status.pods, status.pods_ready),
        ),
        row("Requests", format!("{} under way", status.in_flight)),
    ];
    let (quiet, told): (Vec<_>, Vec<_>) = status
        .health
        .iter()
        .partition(|part| part.healthy && part.detail.is_empty());
    if !quiet.is_empty() {
        rows.push(row("Components", format!("{} running", quiet.len())));
    }
    for part in told {
        rows.push(row(
            &part.part,
            format!(
                "{}{}",
                if part.healthy {
                    "healthy"
                } else {
                    "NOT HEALTHY"
                },
                if part.detail.is_empty() {
                    String::new()
                } else {
                    format!(": {}", part.detail)
                }
            ),
        ));
    }
    let mut text = table::align(&rows);
    if let (Some(url), Some(_)) = (&addresses.http_url, status.services.checked_sub(1)) {
        let _ = writeln!(
            text,
            "\nReach a service: {}",
            super::curl_line(url, &format!("NAME.NAMESPACE.{}", addresses.domain))
        );
    }
    if args.cold_starts {
        text.push_str(&waterfalls(&status.cold_starts));
    }
    if args.memory {
        text.push_str(&memory(&status.memory));
    }
    text
}

/// One line per kind, the largest first.
fn memory(kinds: &[KindMemory]) -> String {
    let held = |kind: &KindMemory| kind.json_bytes + kind.head_bytes;
    let mut kinds: Vec<&KindMemory> = kinds.iter().filter(|kind| kind.objects > 0).collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(held(kind)));
    let head = [
        "KIND",
        "OBJECTS",
        "JSON KB",
        "HEADS KB",
        "BYTES EACH",
        "READ OF LATE",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(kinds.iter().map(|kind| {
        let path = kind
            .path
            .trim_start_matches("/apis/")
            .trim_start_matches("/api/");
        vec![
            path.to_owned(),
            kind.objects.to_string(),
            (kind.json_bytes / 1000).to_string(),
            (kind.head_bytes / 1000).to_string(),
            (held(kind) / kind.objects).to_string(),
            kind.typed.to_string(),
        ]
    }));
    format!("\n{}", table::align(&rows))
}

/// One line per cold start: where its milliseconds went.
fn waterfalls(cold_starts: &[serde_json::Value]) -> String {
    if cold_starts.is_empty() {
        return "\nNo cold starts yet.\n".to_owned();
    }
    let mut columns: Vec<String> = Vec::new();
    for start in cold_starts {
        for name in start["stages"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|stage| stage["name"].as_str())
        {
            if !columns.iter().any(|column| column == name) {
                columns.push(name.to_owned());
            }
        }
    }
    let mut rows = vec![
        std::iter::once("REVISION".to_owned())
            .chain(columns.iter().map(|name| name.to_uppercase()))
            .chain(["TOTAL MS".to_owned()])
            .collect::<Vec<_>>(),
    ];
    for start in cold_starts {
        let stages = start["stages"].as_array().cloned().unwrap_or_default();
        let cell = |name: &String| {
            stages
                .iter()
                .find(|stage| stage["name"] == **name)
                .and_then(|stage| stage["ms"].as_f64())
                .map_or("-".to_owned(), |ms| format!("{ms:.1}"))
        };
        let mut row = vec![start["revision"].as_str().unwrap_or_default().to_owned()];
        row.extend(columns.iter().map(cell));
        row.push(
            start["totalMs"]
                .as_f64()
                .map_or("-".to_owned(), |ms| format!("{ms:.1}")),
        );
        rows.push(row);
    }
    format!(
        "\nCold starts (milliseconds, oldest first):\n{}",
        table::align(&rows)
    )
}
