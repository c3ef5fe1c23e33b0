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
    let resources = resources(&discovery, &wanted)?;
    let namespace = (!args.all_namespaces).then_some(connection.namespace.as_str());
    if matches!(args.output.as_deref(), Some("yaml" | "json" | "name")) {
        return objects(&connection, &resources, namespace, args).await;
    }
    let mut text = String::new();
    for &(resource, names) in &resources {
        let Some(table) = table_of(&connection, resource, names, namespace, args).await? else {
            continue;
        };
        if !text.is_empty() {
            text.push('\n');
        }
        let prefix = (resources.len() > 1).then(|| resource.display());
        text.push_str(&table::render(
            &table,
            args.output.as_deref() == Some("wide"),
            !args.no_headers,
            prefix.as_deref(),
            args.all_namespaces && resource.namespaced,
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

/// A kind, and the names that were asked for; none stand for all.
type Asked<'a> = (&'a Resource, &'a [String]);

fn resources<'a>(
    discovery: &'a Discovery,
    wanted: &'a [(String, Vec<String>)],
) -> anyhow::Result<Vec<Asked<'a>>> {
    let mut resources: Vec<Asked<'a>> = Vec::new();
    for (types, names) in wanted {
        for word in types.split(',').filter(|word| !word.is_empty()) {
            for resource in discovery.find(word)? {
                if !resources.contains(&(resource, names.as_slice())) {
                    resources.push((resource, names));
                }
            }
        }
    }
    Ok(resources)
}

/// The server's table of a kind, `None` without rows.
async fn table_of(
    connection: &Connection,
    resource: &Resource,
    names: &[String],
    namespace: Option<&str>,
    args: &GetArgs,
) -> anyhow::Result<Option<Value>> {
    let paths = if names.is_empty() {
        vec![with_selector(resource.path(namespace, None), args)]
    } else {
        let path = |name: &String| resource.path(namespace, Some(name));
        names.iter().map(path).collect()
    };
    let mut shown = Vec::new();
    for path in paths {
        let table = connection
            .call(
                http::Method::GET,
                &path,
                "application/json",
                TABLE,
                Vec::new(),
            )
            .await?;
        shown.push(table);
    }
    Ok(shown.into_iter().reduce(joined).filter(|table| {
        table["rows"]
            .as_array()
            .is_some_and(|rows| !rows.is_empty())
    }))
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
