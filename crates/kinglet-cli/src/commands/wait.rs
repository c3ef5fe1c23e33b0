//! `wait`: until a condition holds, or an object is gone or there.

use std::time::Duration;

use anyhow::bail;
use serde_json::Value;

use crate::args::WaitArgs;
use crate::client::{Connection, types_and_names};
use crate::discovery::Discovery;

const LOOK_EVERY: Duration = Duration::from_millis(50);

enum Until {
    Condition { name: String, value: String },
    Gone,
    There,
}

pub(crate) async fn run(args: &WaitArgs) -> anyhow::Result<()> {
    let until = parse(&args.what)?;
    let connection = Connection::open(&args.target).await?;
    let discovery = Discovery::load(&connection).await?;
    let mut objects = Vec::new();
    for (word, names) in types_and_names(&args.objects)? {
        if names.is_empty() {
            bail!("say which {word} to wait for");
        }
        for resource in discovery.find(&word)? {
            objects.extend(names.iter().map(|name| {
                (
                    format!("{}/{name}", resource.display()),
                    resource.path(Some(&connection.namespace), Some(name)),
                )
            }));
        }
    }
    let deadline = tokio::time::Instant::now() + args.timeout;
    for (display, path) in &objects {
        loop {
            let found = connection.find(path).await?;
            if met(&until, found.as_ref()) {
                let done = match &until {
                    Until::Gone => "deleted",
                    Until::There => "created",
                    Until::Condition { .. } => "condition met",
                };
                crate::screen::say!("{display} {done}");
                break;
            }
            if found.is_none() && matches!(until, Until::Condition { .. }) {
                bail!("{display} does not exist (wait for it to appear with --for=create)");
            }
            if tokio::time::Instant::now() > deadline {
                bail!(
                    "timed out after {} s waiting for {} of {display}{}",
                    args.timeout.as_secs(),
                    args.what,
                    unmet(&until, found.as_ref())
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

fn parse(what: &str) -> anyhow::Result<Until> {
    match what.split_once('=') {
        None if what == "delete" => Ok(Until::Gone),
        None if what == "create" => Ok(Until::There),
        Some(("condition", rest)) => {
            let (name, value) = rest.split_once('=').unwrap_or((rest, "True"));
            Ok(Until::Condition {
                name: name.to_owned(),
                value: value.to_owned(),
            })
        }
        _ => bail!("--for={what}: write condition=NAME, condition=NAME=VALUE, delete or create"),
    }
}

fn met(until: &Until, found: Option<&Value>) -> bool {
    match until {
        Until::Gone => found.is_none(),
        Until::There => found.is_some(),
        Until::Condition { name, value } => found.is_some_and(|object| {
            let current = object["metadata"]["generation"].as_i64().unwrap_or(0)
                <= object["status"]["observedGeneration"]
                    .as_i64()
                    .unwrap_or(i64::MAX);
            current
                && condition(object, name).is_some_and(|condition| {
                    condition["status"]
                        .as_str()
                        .is_some_and(|status| status.eq_ignore_ascii_case(value))
                })
        }),
    }
}

fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| {
            condition["type"]
                .as_str()
                .is_some_and(|kind| kind.eq_ignore_ascii_case(name))
        })
}

/// What the condition says now, so that nobody has to ask a second time.
fn unmet(until: &Until, found: Option<&Value>) -> String {
    let Until::Condition { name, .. } = until else {
        return String::new();
    };
    let Some(condition) = found.and_then(|object| condition(object, name)) else {
        return " (it is not set yet)".to_owned();
    };
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    format!(
        " (now {}: {} {})",
        text("status"),
        text("reason"),
        text("message")
    )
    .replace("  ", " ")
    .replace(" )", ")")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_old_status_does_not_count() {
        let ready = |generation: i64, observed: i64| json!({"metadata": {"generation": generation}, "status": {"observedGeneration": observed, "conditions": [{"type": "Ready", "status": "True"}]}});
        let until = parse("condition=ready").expect("parses");
        assert!(met(&until, Some(&ready(1, 1))));
        assert!(!met(&until, Some(&ready(2, 1))));
        assert!(!met(&until, None));
        assert!(met(&parse("delete").expect("parses"), None));
        assert!(parse("nonsense").is_err());
    }
}
