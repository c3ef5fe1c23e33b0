//! `delete`: by file or by name, waiting until the objects are gone.

use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::args::DeleteArgs;
use crate::client::{Connection, type_and_names};
use crate::discovery::Discovery;

/// Finalizers and the grace of pods fit well into it.
const GONE_MAX: Duration = Duration::from_secs(330);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn run(args: &DeleteArgs) -> anyhow::Result<()> {
    let connection = Connection::open(&args.target).await?;
    let discovery = Discovery::load(&connection).await?;
    // What to print, and the object's path.
    let mut objects: Vec<(String, String)> = Vec::new();
    if !args.filename.is_empty() {
        for document in super::manifests::read(&args.filename)? {
            let resource = discovery.of_manifest(&document)?;
            let name = document["metadata"]["name"].as_str().with_context(|| format!("{} has no metadata.name", resource.kind))?;
            let namespace = document["metadata"]["namespace"].as_str().unwrap_or(&connection.namespace);
            objects.push((format!("{} \"{name}\"", resource.display()), resource.path(Some(namespace), Some(name))));
        }
    }
    if let Some(types) = &args.types {
        let (word, names) = type_and_names(types, &args.names)?;
        if names.is_empty() && !args.all {
            bail!("say which {word} to delete, or --all");
        }
        for resource in discovery.find(&word)? {
            let namespace = Some(connection.namespace.as_str());
            let names = if args.all {
                let list = connection.get(&resource.path(namespace, None)).await?;
                list["items"].as_array().cloned().unwrap_or_default().iter().filter_map(|item| Some(item["metadata"]["name"].as_str()?.to_owned())).collect()
            } else {
                names.clone()
            };
            objects.extend(names.iter().map(|name| (format!("{} \"{name}\"", resource.display()), resource.path(namespace, Some(name)))));
        }
    }
    if objects.is_empty() {
        bail!("say what to delete: a TYPE and a NAME, or -f FILE");
    }
    for (display, path) in &objects {
        let Some(found) = connection.find(path).await? else {
            if args.ignore_not_found {
                continue;
            }
            bail!("{display} does not exist");
        };
        connection
            .call(http::Method::DELETE, path, "application/json", "application/json", br#"{"propagationPolicy":"Background"}"#.to_vec())
            .await
            .with_context(|| format!("deleting {display}"))?;
        anstream::println!("{display} deleted");
        if !args.no_wait {
            gone(&connection, path, display, &found["metadata"]["uid"]).await?;
        }
    }
    Ok(())
}

async fn gone(connection: &Connection, path: &str, display: &str, uid: &serde_json::Value) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + GONE_MAX;
    // A new object of the same name is not the one that was deleted.
    while let Some(found) = connection.find(path).await?.filter(|found| found["metadata"]["uid"] == *uid) {
        if tokio::time::Instant::now() > deadline {
            bail!("{display} is still there after {} s; its finalizers are {}", GONE_MAX.as_secs(), found["metadata"]["finalizers"]);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
