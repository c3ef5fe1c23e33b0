//! `get`: tables from the server, or the objects themselves.

use std::fmt::Write as _;

use anyhow::bail;
use serde_json::{Value, json};

use crate::args::GetArgs;
use crate::client::{Connection, types_and_names};
use crate::discovery::{Discovery, Resource};
use crate::table;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

pub(crate) async fn run(args: &GetArgs) -> anyhow::Result<()> {
    let wanted = types_and_names(std::iter::once(&args.types).chain(&args.names))?;
    if args.all_namespaces && wanted.iter().any(|(_, names)| !names.is_empty()) {
        bail!(
            "a name is not enough to find an object in all namespaces; say which with --namespace"
        );
    }
    let connection = Connection::open(&args.target).await?;
    let discovery = Discovery::load(&connection).await?;
    let mut resources: Vec<(&Resource, &[String])> = Vec::new();
    for (types, names) in &wanted {
        for word in types.split(',').filter(|word| !word.is_empty()) {
            for resource in discovery.find(word)? {
                if !resources.contains(&(resource, names.as_slice())) {
                    resources.push((resource, names));
                }
            }
        }
    }
    let namespace = (!args.all_namespaces).then_some(connection.namespace.as_str());
    if matches!(args.output.as_deref(), Some("yaml" | "json" | "name")) {
        return objects(&connection, &resources, namespace, args).await;
    }
    let mut text = String::new();
    let several = resources.len() > 1;
    for (resource, names) in &resources {
        let mut shown = Vec::new();
        if names.is_empty() {
            shown.push(
                connection
                    .call(
                        http::Method::GET,
                        &with_selector(resource.path(namespace, None), args),
                        "application/json",
                        TABLE,
                        Vec::new(),
                    )
                    .await?,
            );
        }
        for name in *names {
            shown.push(
                connection
                    .call(
                        http::Method::GET,
                        &resource.path(namespace, Some(name)),
                        "application/json",
                        TABLE,
                        Vec::new(),
                    )
                    .await?,
            );
        }
        let Some(table) = shown.into_iter().reduce(joined) else {
            continue;
        };
        if table["rows"].as_array().is_none_or(Vec::is_empty) {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let prefix = several.then(|| resource.display());
        let namespaces = args.all_namespaces && resource.namespaced;
        text.push_str(&table::render(
            &table,
            args.output.as_deref() == Some("wide"),
            !args.no_headers,
            prefix.as_deref(),
            namespaces,
        ));
    }
    if text.is_empty() {
        match namespace.filter(|_| resources.iter().all(|(resource, _)| resource.namespaced)) {
            Some(namespace) => anstream::eprintln!("No resources found in {namespace} namespace."),
            None => anstream::eprintln!("No resources found"),
        }
    }
    crate::screen::show!("{text}");
    Ok(())
}

fn with_selector(path: String, args: &GetArgs) -> String {
    match &args.selector {
        // The selector's own characters (`=`, `,`, `!`) are legal in a query; a blank and a hash are not.
        Some(selector) => format!(
            "{path}?labelSelector={}",
            selector
                .replace('%', "%25")
                .replace(' ', "%20")
                .replace('&', "%26")
                .replace('#', "%23")
                .replace('+', "%2B")
        ),
        None => path,
    }
}

fn joined(mut first: Value, mut second: Value) -> Value {
    if let (Some(rows), Some(more)) = (first["rows"].as_array_mut(), second["rows"].as_array_mut())
    {
        rows.append(more);
    }
    first
}

async fn objects(
    connection: &Connection,
    resources: &[(&Resource, &[String])],
    namespace: Option<&str>,
    args: &GetArgs,
) -> anyhow::Result<()> {
    let mut items = Vec::new();
    for (resource, names) in resources {
        if names.is_empty() {
            let list = connection
                .get(&with_selector(resource.path(namespace, None), args))
                .await?;
            for mut item in list["items"].as_array().cloned().unwrap_or_default() {
                // Items of a list come without their type.
                item["apiVersion"] = json!(resource.api_version());
                item["kind"] = json!(resource.kind);
                items.push((resource.display(), item));
            }
        }
        for name in *names {
            items.push((
                resource.display(),
                connection
                    .get(&resource.path(namespace, Some(name)))
                    .await?,
            ));
        }
    }
    if args.output.as_deref() == Some("name") {
        let lines = items
            .iter()
            .fold(String::new(), |mut text, (display, item)| {
                let _ = writeln!(
                    text,
                    "{display}/{}",
                    item["metadata"]["name"].as_str().unwrap_or_default()
                );
                text
            });
        crate::screen::show!("{lines}");
        return Ok(());
    }
    for (_, item) in &mut items {
        if let Some(metadata) = item["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
    }
    let one = matches!(resources, [(_, [_])]);
    let shown = if one && items.len() == 1 {
        items.remove(0).1
    } else {
        json!({"apiVersion": "v1", "kind": "List", "items": items.into_iter().map(|(_, item)| item).collect::<Vec<_>>()})
    };
    if args.output.as_deref() == Some("json") {
        crate::screen::say!("{}", serde_json::to_string_pretty(&shown)?);
    } else {
        crate::screen::show!("{}", yaml(&shown)?);
    }
    Ok(())
}

pub(crate) fn yaml(value: &Value) -> anyhow::Result<String> {
    let mut text =
        serde_saphyr::to_string(value).map_err(|error| anyhow::anyhow!("writing YAML: {error}"))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
