//! `delete`: by file or by name, waiting until the objects are gone.

use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::args::DeleteArgs;
use crate::client::{Connection, types_and_names};
use crate::discovery::Discovery;

/// Finalizers and the grace of pods fit well into it.
const GONE_MAX: Duration = Duration::from_secs(330);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn run(args: &DeleteArgs) -> anyhow::Result<()> {
    let connection = Connection::open(&args.target).await?;
    let discovery = Discovery::load(&connection).await?;
    let objects = named(&connection, &discovery, args).await?;
    if objects.is_empty() {
        if args.all {
            anstream::eprintln!("No resources found in {} namespace.", connection.namespace);
            return Ok(());
        }
        bail!("say what to delete: a TYPE and a NAME, or -f FILE");
    }
    let (mut leaving, mut failures) = (Vec::new(), 0);
    for (display, path) in &objects {
        match delete(&connection, display, path, args.ignore_not_found).await {
            Ok(Some(uid)) => {
                crate::screen::say!("{display} deleted");
                leaving.push((display, path, uid));
            }
            Ok(None) => {}
            Err(error) if objects.len() == 1 => return Err(error),
            Err(error) => {
                crate::report(&error);
                failures += 1;
            }
        }
    }
    // All of them go at the same time.
    for (display, path, uid) in leaving.into_iter().filter(|_| !args.no_wait) {
        gone(&connection, path, display, &uid).await?;
    }
    anyhow::ensure!(
        failures == 0,
        "{failures} of {} objects were not deleted",
        objects.len()
    );
    Ok(())
}

/// Everything that files and words name: what to print, and the object's path.
async fn named(
    connection: &Connection,
    discovery: &Discovery,
    args: &DeleteArgs,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut objects = Vec::new();
    if !args.filename.is_empty() {
        for document in super::manifests::read(&args.filename)? {
            let resource = discovery
                .of_manifest(&document.object)
                .with_context(|| document.origin.clone())?;
            let (namespace, name) = super::manifests::namespace_and_name(
                &document.object,
                &resource.kind,
                &connection.namespace,
            )
            .with_context(|| document.origin.clone())?;
            objects.push((
                format!("{} \"{name}\"", resource.display()),
                resource.path(Some(namespace), Some(name)),
            ));
        }
    }
    for (word, names) in types_and_names(args.types.iter().chain(&args.names))? {
        if names.is_empty() && !args.all {
            bail!("say which {word} to delete, or --all");
        }
        for resource in discovery.find(&word)? {
            let namespace = Some(connection.namespace.as_str());
            let names = if args.all {
                let list = connection.get(&resource.path(namespace, None)).await?;
                list["items"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|item| Some(item["metadata"]["name"].as_str()?.to_owned()))
                    .collect()
            } else {
                names.clone()
            };
            objects.extend(names.iter().map(|name| {
                (
                    format!("{} \"{name}\"", resource.display()),
                    resource.path(namespace, Some(name)),
                )
            }));
        }
    }
    Ok(objects)
}

/// The uid of what was deleted, `None` for nothing that need be there.
async fn delete(
    connection: &Connection,
    display: &str,
    path: &str,
    ignore_not_found: bool,
) -> anyhow::Result<Option<serde_json::Value>> {
    let Some(found) = connection.find(path).await? else {
        if ignore_not_found {
            return Ok(None);
        }
        bail!("{display} does not exist");
    };
    connection
        .call(
            http::Method::DELETE,
            path,
            "application/json",
            "application/json",
            br#"{"propagationPolicy":"Background"}"#.to_vec(),
        )
        .await
        .with_context(|| format!("deleting {display}"))?;
    Ok(Some(found["metadata"]["uid"].clone()))
}

async fn gone(
    connection: &Connection,
    path: &str,
    display: &str,
    uid: &serde_json::Value,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + GONE_MAX;
    // A new object of the same name is not the one that was deleted.
    while let Some(found) = connection
        .find(path)
        .await?
        .filter(|found| found["metadata"]["uid"] == *uid)
    {
        if tokio::time::Instant::now() > deadline {
            bail!(
                "{display} is still there after {} s; its finalizers are {}",
                GONE_MAX.as_secs(),
                found["metadata"]["finalizers"]
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
