//! `apply`: server-side apply of every document.

use anyhow::Context as _;
use serde_json::Value;

use crate::args::ApplyArgs;
use crate::client::Connection;
use crate::discovery::Discovery;

pub(crate) async fn run(args: &ApplyArgs) -> anyhow::Result<()> {
    let documents = super::manifests::read(&args.filename)?;
    let connection = Connection::open(&args.target).await?;
    let mut discovery = Discovery::load(&connection).await?;
    let mut failures = 0;
    for document in &documents {
        if discovery.of_manifest(&document.object).is_err() {
            // A CRD among the documents may have brought the kind.
            discovery = Discovery::load(&connection).await?;
        }
        let outcome = one(&connection, &discovery, &document.object, args).await;
        if let Err(error) = outcome.with_context(|| document.origin.clone()) {
            if documents.len() == 1 || crate::screen::reader_left(&error) {
                return Err(error);
            }
            crate::report(&error);
            failures += 1;
        }
    }
    anyhow::ensure!(
        failures == 0,
        "{failures} of {} objects were not applied",
        documents.len()
    );
    Ok(())
}

async fn one(
    connection: &Connection,
    discovery: &Discovery,
    document: &Value,
    args: &ApplyArgs,
) -> anyhow::Result<()> {
    let resource = discovery.of_manifest(document)?;
    let (namespace, name) =
        super::manifests::namespace_and_name(document, &resource.kind, &connection.namespace)?;
    let path = resource.path(Some(namespace), Some(name));
    let before = connection.find(&path).await?;
    let query = format!(
        "{path}?fieldManager=kinglet&fieldValidation=Strict&force={}{}",
        args.force_conflicts,
        if args.dry_run { "&dryRun=All" } else { "" }
    );
    let after = connection
        .call(
            http::Method::PATCH,
            &query,
            "application/apply-patch+yaml",
            "application/json",
            serde_json::to_vec(document)?,
        )
        .await
        .with_context(|| format!("applying {}/{name}", resource.display()))?;
    let verb = match &before {
        None => "created",
        Some(before)
            if before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"] =>
        {
            "unchanged"
        }
        Some(_) => "configured",
    };
    crate::screen::say!(
        "{}/{name} {verb}{}",
        resource.display(),
        if args.dry_run { " (dry run)" } else { "" }
    );
    Ok(())
}
