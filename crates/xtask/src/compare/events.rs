//! The Events of a scenario beside the recorded ones.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use kinglet_testkit::Api;
use serde_json::Value;

use super::names::{replace, word};
use super::{Show, exceptions};

/// How long the last events may take.
const EVENTS_MAX: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Compares the Events as a set.
pub(super) async fn events(
    api: &Api,
    namespace: &str,
    file: &Path,
    show: Show,
) -> anyhow::Result<usize> {
    let expected = event_lines(
        std::fs::read_to_string(file)?
            .lines()
            .map(str::to_owned)
            .collect(),
    );
    let began = Instant::now();
    loop {
        let list = api
            .get(&format!("/api/v1/namespaces/{namespace}/events"))
            .await?;
        let lines = list["items"].as_array().into_iter().flatten().map(|event| {
            let text = |field: &str| event[field].as_str().unwrap_or_default();
            let about = |field: &str| event["involvedObject"][field].as_str().unwrap_or_default();
            format!(
                "{} {} {}/{}: {}",
                text("type"),
                text("reason"),
                about("kind"),
                about("name"),
                text("message")
            )
        });
        let actual = event_lines(lines.collect());
        let wrong: Vec<String> = expected
            .difference(&actual)
            .map(|line| ("missing", line))
            .chain(
                actual
                    .difference(&expected)
                    .map(|line| ("not expected", line)),
            )
            .filter(|(_, line)| exceptions::event(line).is_none())
            .map(|(what, line)| format!("{what}: {line}"))
            .collect();
        if wrong.is_empty() || began.elapsed() > EVENTS_MAX {
            println!(
                "   events: {} recorded, {} here, {} differences",
                expected.len(),
                actual.len(),
                wrong.len()
            );
            wrong
                .iter()
                .take(show.most)
                .for_each(|line| println!("     {line}"));
            return Ok(wrong.len());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Lines `Type Reason Kind/name: message` with random suffixes replaced.
fn event_lines(lines: Vec<String>) -> BTreeSet<String> {
    let names = lines.iter().filter_map(|line| {
        line.split(' ')
            .nth(2)?
            .trim_end_matches(':')
            .split_once('/')
    });
    let words: Vec<(String, String)> = names.filter_map(|(kind, name)| word(kind, name)).collect();
    let replaced = lines.into_iter().map(|line| {
        let mut line = Value::String(line);
        replace(&mut line, &words);
        let line = line.as_str().unwrap_or_default();
        // What follows names the pod once more, and its uid.
        let back_off = line.contains("Back-off restarting failed container");
        match line.split_once(" in pod ").filter(|_| back_off) {
            Some((said, _)) => said.to_owned(),
            None => line.to_owned(),
        }
    });
    replaced.collect()
}
