//! Reading YAML and JSON documents from files, folders and standard input.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// More than the API server takes per object, times a few hundred objects.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// All documents, in order; lists are taken apart.
pub(crate) fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Value>> {
    let mut documents = Vec::new();
    for file in files {
        for (name, text) in texts(file)? {
            let parsed: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| anyhow::anyhow!("{error}")).with_context(|| format!("parsing {name}"))?;
            for document in parsed {
                flatten(document, &name, &mut documents)?;
            }
        }
    }
    if documents.is_empty() {
        bail!("no objects in {}", files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "));
    }
    Ok(documents)
}

fn flatten(document: Value, name: &str, documents: &mut Vec<Value>) -> anyhow::Result<()> {
    if document.is_null() {
        return Ok(());
    }
    if !document.is_object() {
        bail!("{name}: a document is not an object");
    }
    if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"))
        && let Some(items) = document["items"].as_array()
    {
        for item in items {
            flatten(item.clone(), name, documents)?;
        }
        return Ok(());
    }
    documents.push(document);
    Ok(())
}

fn texts(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text).context("reading standard input")?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let failed = || format!("reading {}", path.display());
    if path.is_dir() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(path)
            .with_context(failed)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| file.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known)))
            .collect();
        files.sort();
        return Ok(files.iter().map(|file| texts(file)).collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect());
    }
    let mut text = String::new();
    std::fs::File::open(path).with_context(failed)?.take(FILE_BYTES_MAX).read_to_string(&mut text).with_context(failed)?;
    Ok(vec![(path.display().to_string(), text)])
}
