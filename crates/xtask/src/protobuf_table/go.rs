//! Reading Go: imports, types, the fields of a struct with their tags and markers.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::{Field, PACKAGES, SCALARS, SPECIAL};

/// Local name -> import path.
pub(super) fn imports(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        if line.starts_with("type ") {
            break;
        }
        let line = line.trim().trim_start_matches("import ");
        let Some((alias, path)) = line.split_once('"') else {
            continue;
        };
        let path = path.trim_end_matches('"');
        let local = if alias.trim().is_empty() {
            path.rsplit('/').next().unwrap_or(path)
        } else {
            alias.trim()
        };
        found.insert(local.to_owned(), path.to_owned());
    }
    found
}

/// A Go type as the table writes it: `*` pointer, `[]` list, `{}` map with text keys, then a word.
pub(super) fn resolve(kind: &str, package: &str, imports: &BTreeMap<String, String>) -> String {
    if kind == "[]byte" {
        return "bytes".to_owned();
    }
    if let Some(rest) = kind.strip_prefix('*') {
        return format!("*{}", resolve(rest, package, imports));
    }
    if let Some(rest) = kind.strip_prefix("[]") {
        return format!("[]{}", resolve(rest, package, imports));
    }
    if let Some(rest) = kind.strip_prefix("map[") {
        let value = rest.split_once(']').map_or(rest, |(_, value)| value);
        return format!("{{}}{}", resolve(value, package, imports));
    }
    let kind = match kind {
        "interface{}" => "any",
        "int" | "uint32" | "uint16" => "int32",
        "uint64" => "int64",
        other => other,
    };
    if SCALARS.contains(&kind) {
        return kind.to_owned();
    }
    let id = match kind.split_once('.') {
        None => format!("{package}.{kind}"),
        Some((local, name)) => {
            let path = imports.get(local).map_or(local, String::as_str);
            let home = PACKAGES
                .iter()
                .find(|p| format!("{}/{}", p.module, p.folder) == path)
                .map(|p| p.id);
            format!(
                "{}.{name}",
                home.unwrap_or_else(|| path.rsplit('/').next().unwrap_or(path))
            )
        }
    };
    match SPECIAL.iter().find(|(name, _)| *name == id) {
        Some((_, word)) => (*word).to_owned(),
        None => id,
    }
}

pub(super) fn fields(
    body: &[&str],
    package: &str,
    imports: &BTreeMap<String, String>,
) -> Result<Vec<Field>> {
    let mut found = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in body {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("//") {
            comment.push(text.trim());
            continue;
        }
        if let Some((declared, tags)) = line.split_once('`')
            && let Some(field) = field(
                declared.trim(),
                tags.split('`').next().unwrap_or(""),
                &comment,
                package,
                imports,
            )?
        {
            found.push(field);
        }
        comment.clear();
    }
    Ok(found)
}

fn field(
    declared: &str,
    tags: &str,
    comment: &[&str],
    package: &str,
    imports: &BTreeMap<String, String>,
) -> Result<Option<Field>> {
    let tag = |name: &str| {
        let start = tags.find(&format!("{name}:\""))? + name.len() + 2;
        Some(&tags[start..start + tags[start..].find('"')?])
    };
    let Some(json) = tag("json") else {
        return Ok(None);
    };
    let (name, options) = json.split_once(',').unwrap_or((json, ""));
    if name == "-" {
        return Ok(None);
    }
    let kind = declared
        .split_once(char::is_whitespace)
        .map_or(declared, |(_, kind)| kind.trim());
    let number = match tag("protobuf") {
        Some(text) => text
            .split(',')
            .nth(1)
            .context("protobuf tag without number")?
            .parse()
            .context("protobuf number")?,
        None => 0,
    };
    let inline = options.contains("inline") || name.is_empty();
    let optional = options.contains("omitempty") || options.contains("omitzero");
    Ok(Some(Field {
        number,
        name: if inline {
            "<".to_owned()
        } else {
            name.to_owned()
        },
        kind: resolve(kind, package, imports),
        marks: marks(optional, tag, comment),
    }))
}

/// Returns what the table says about a field beside its type: whether it may be missing, how it merges, its default.
fn marks<'a>(
    optional: bool,
    tag: impl Fn(&str) -> Option<&'a str>,
    comment: &[&str],
) -> Vec<String> {
    let mut marks = Vec::new();
    if optional {
        marks.push("?".to_owned());
    }
    let mark = |name: &str| {
        comment
            .iter()
            .find_map(|c| c.strip_prefix(&format!("+{name}=")))
    };
    if let Some(strategy) = tag("patchStrategy").or_else(|| mark("patchStrategy")) {
        marks.push(format!("p={strategy}"));
    }
    if let Some(key) = tag("patchMergeKey").or_else(|| mark("patchMergeKey")) {
        marks.push(format!("k={key}"));
    }
    if let Some(list) = mark("listType") {
        marks.push(format!("l={list}"));
    }
    let keys: Vec<&str> = comment
        .iter()
        .filter_map(|c| c.strip_prefix("+listMapKey="))
        .collect();
    if !keys.is_empty() {
        marks.push(format!("lk={}", keys.join(",")));
    }
    if mark("mapType") == Some("atomic") || mark("structType") == Some("atomic") {
        marks.push("m=atomic".to_owned());
    }
    if let Some(default) = mark("default")
        && !default.starts_with("ref(")
        && !default.contains(' ')
    {
        marks.push(format!("d={default}"));
    }
    marks
}
