//! Reading YAML and JSON documents from files, folders and standard input.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::client::segment;

/// More than the API server takes per object, times a few hundred objects.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// One object and where it was written.
#[derive(Debug)]
pub(crate) struct Document {
    /// `FILE`, or `FILE, document 2` where there are several.
    pub(crate) origin: String,
    pub(crate) object: Value,
}

/// All documents, in order; lists are taken apart.
pub(crate) fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for file in files {
        for (name, text) in texts(file)? {
            let parsed: Vec<Value> = serde_saphyr::from_multiple(&text)
                .map_err(|error| anyhow::anyhow!("{error}"))
                .with_context(|| format!("parsing {name}"))?;
            let several = parsed.len() > 1;
            for (index, document) in parsed.into_iter().enumerate() {
                let origin = if several {
                    format!("{name}, document {}", index + 1)
                } else {
                    name.clone()
                };
                flatten(document, &origin, &mut documents)?;
            }
        }
    }
    if documents.is_empty() {
        bail!(
            "no objects in {}",
            files
                .iter()
                .map(|file| file.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    Ok(documents)
}

/// Namespace and name of an object, fit for a path.
pub(crate) fn namespace_and_name<'a>(
    object: &'a Value,
    kind: &str,
    default_namespace: &'a str,
) -> anyhow::Result<(&'a str, &'a str)> {
    let name = object["metadata"]["name"]
        .as_str()
        .with_context(|| format!("{kind} has no metadata.name"))?;
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or(default_namespace);
    segment(name).with_context(|| format!("{kind}: metadata.name"))?;
    segment(namespace).with_context(|| format!("{kind}: metadata.namespace"))?;
    Ok((namespace, name))
}

fn flatten(document: Value, origin: &str, documents: &mut Vec<Document>) -> anyhow::Result<()> {
    if document.is_null() {
        return Ok(());
    }
    if !document.is_object() {
        bail!("{origin}: this is not an object with apiVersion, kind and metadata");
    }
    if document["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("List"))
        && let Some(items) = document["items"].as_array()
    {
        for item in items {
            flatten(item.clone(), origin, documents)?;
        }
        return Ok(());
    }
    documents.push(Document {
        origin: origin.to_owned(),
        object: document,
    });
    Ok(())
}

fn texts(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    if path == Path::new("-") {
        let mut text = String::new();
        bounded(std::io::stdin(), &mut text).context("reading standard input")?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let failed = || format!("reading {}", path.display());
    if path.is_dir() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(path)
            .with_context(failed)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| {
                file.extension().is_some_and(|extension| {
                    ["yaml", "yml", "json"]
                        .iter()
                        .any(|known| extension == *known)
                })
            })
            .collect();
        files.sort();
        return Ok(files
            .iter()
            .map(|file| texts(file))
            .collect::<anyhow::Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect());
    }
    let mut text = String::new();
    bounded(std::fs::File::open(path).with_context(failed)?, &mut text).with_context(failed)?;
    Ok(vec![(path.display().to_string(), text)])
}

fn bounded(source: impl std::io::Read, text: &mut String) -> anyhow::Result<()> {
    source.take(FILE_BYTES_MAX + 1).read_to_string(text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("it is larger than {FILE_BYTES_MAX} bytes")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("kinglet-manifests-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("folder");
        for (file, text) in files {
            std::fs::write(folder.join(file), text).expect("file");
        }
        folder
    }

    fn kinds(path: &Path) -> Vec<String> {
        read(&[path.to_owned()])
            .expect("reads")
            .iter()
            .map(|document| {
                document.object["kind"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn documents_lists_folders_and_json() {
        let folder = folder(
            "kinds",
            &[
                (
                    "a.yaml",
                    "---\n# only a comment\n---\nkind: A\n---\nkind: BList\nitems:\n- kind: B\n- kind: C\n---\n",
                ),
                ("b.json", r#"{"kind": "D"}"#),
                ("ignored.txt", "kind: E"),
            ],
        );
        assert_eq!(kinds(&folder), ["A", "B", "C", "D"]);
        assert_eq!(kinds(&folder.join("b.json")), ["D"]);
        std::fs::remove_dir_all(folder).expect("clean");
    }

    #[test]
    fn refusals_name_file_and_document() {
        let folder = folder(
            "bad",
            &[
                ("scalar.yaml", "kind: A\n---\njust text\n"),
                ("broken.yaml", "kind: [A\n"),
                ("tab.yaml", "a:\n\tb: 1\n"),
                ("empty.yaml", "# nothing\n"),
            ],
        );
        for (file, wanted) in [
            ("scalar.yaml", "scalar.yaml, document 2"),
            ("broken.yaml", "parsing "),
            ("tab.yaml", "parsing "),
            ("empty.yaml", "no objects in"),
            ("absent.yaml", "reading "),
        ] {
            let error = format!("{:#}", read(&[folder.join(file)]).expect_err(file));
            assert!(
                error.contains(wanted) && error.contains(file),
                "{file}: {error}"
            );
        }
        std::fs::remove_dir_all(folder).expect("clean");
    }
}
