//! Writing kubeconfigs: one of our own, or a context merged into the user's.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use serde_json::{Value, json};

/// What a kubeconfig says about us.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// `https://127.0.0.1:6443`
    pub server: &'a str,
    /// Certificate authority.
    pub ca_pem: &'a str,
    /// Client certificate.
    pub certificate_pem: &'a str,
    /// Client key.
    pub key_pem: &'a str,
    /// Data directory: tells whose context it is when several Kinglets run on one machine.
    pub data: &'a Path,
}

/// Name of cluster, user and context.
pub const CONTEXT: &str = "kinglet";

/// A kubeconfig with nothing but us.
pub fn whole(entry: &Entry<'_>) -> anyhow::Result<String> {
    render(&merged(
        json!({"apiVersion": "v1", "kind": "Config"}),
        entry,
        true,
    )?)
}

/// The file that kubectl would write to.
pub fn users_file() -> Option<PathBuf> {
    if let Some(list) = std::env::var_os("KUBECONFIG")
        && let Some(first) = std::env::split_paths(&list).find(|path| !path.as_os_str().is_empty())
    {
        return Some(first);
    }
    crate::location::home().map(|home| home.join(".kube/config"))
}

/// Name of the extension in our cluster's entry that holds the data directory.
const EXTENSION: &str = "kinglet";

/// The data directory that a cluster's entry says it belongs to.
fn owner(cluster: &Value) -> Option<&str> {
    let extensions = cluster.pointer("/cluster/extensions")?.as_array()?;
    extensions
        .iter()
        .find(|extension| extension["name"] == EXTENSION)?
        .pointer("/extension/data")?
        .as_str()
}

/// Whether the entry named like ours is ours to change: it says so, its authority is ours, or its instance is gone.
fn is_ours(cluster: &Value, data: &Path, ca_pem: &str) -> bool {
    let authority = cluster.pointer("/cluster/certificate-authority-data");
    if authority.and_then(Value::as_str) == Some(encode(ca_pem).as_str()) {
        return true;
    }
    owner(cluster).is_some_and(|owner| Path::new(owner) == data || !Path::new(owner).exists())
}

fn encode(pem: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(pem)
}

/// The entry with our name in a list of a kubeconfig.
fn named<'a>(config: &'a Value, list: &str) -> Option<&'a Value> {
    let entries = config[list].as_array()?;
    entries.iter().find(|entry| entry["name"] == CONTEXT)
}

/// Takes the context of the instance with this data directory out of the user's file; false when there is none of it.
pub fn remove_from(path: &Path, data: &Path, ca_pem: &str) -> anyhow::Result<bool> {
    let Some(mut config) = read(path)? else {
        return Ok(false);
    };
    let ours = named(&config, "clusters").is_some_and(|cluster| is_ours(cluster, data, ca_pem));
    if !ours {
        return Ok(false);
    }
    for list in ["clusters", "users", "contexts"] {
        if let Some(entries) = config[list].as_array_mut() {
            entries.retain(|entry| entry["name"] != CONTEXT);
        }
    }
    if config["current-context"] == CONTEXT {
        config["current-context"] = json!("");
    }
    replace(path, &config)?;
    Ok(true)
}

/// The file as YAML, `None` where there is none or nothing in it.
fn read(path: &Path) -> anyhow::Result<Option<Value>> {
    match std::fs::symlink_metadata(path) {
        // Somebody else's link would choose which file we read and replace.
        Ok(meta) => kinglet_process::private::owned(path, &meta)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("reading kubeconfig {}", path.display()));
        }
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => return Ok(None),
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("reading kubeconfig {}", path.display()));
        }
    };
    serde_saphyr::from_str::<Value>(&text)
        .map(Some)
        .map_err(|error| anyhow::anyhow!("{error}"))
        .with_context(|| {
            format!(
                "reading kubeconfig {} (nothing was changed)",
                path.display()
            )
        })
}

/// Writes the file in one step, behind the user's own link where there is one.
fn replace(path: &Path, config: &Value) -> anyhow::Result<()> {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    kinglet_process::private::write(&target, &render(config)?)?;
    Ok(())
}

/// Puts our context into the user's file; true when it is the current one afterwards. Comments in the file are lost,
/// as they are when kubectl writes it; a file that is right already is not touched.
pub fn merge_into(path: &Path, entry: &Entry<'_>, make_current: bool) -> anyhow::Result<bool> {
    let existing = read(path)?.unwrap_or_else(|| json!({"apiVersion": "v1", "kind": "Config"}));
    if let Some(cluster) = named(&existing, "clusters")
        && !is_ours(cluster, entry.data, entry.ca_pem)
    {
        let owner = owner(cluster).map_or_else(
            || "something else".to_owned(),
            |data| format!("the Kinglet with data directory {data}"),
        );
        bail!(
            "the context {CONTEXT} in {} belongs to {owner} ({}); nothing was changed there",
            path.display(),
            cluster["cluster"]["server"].as_str().unwrap_or("no server")
        );
    }
    let merged = merged(existing.clone(), entry, make_current).with_context(|| {
        format!(
            "merging into kubeconfig {} (nothing was changed)",
            path.display()
        )
    })?;
    let current = merged["current-context"] == CONTEXT;
    // A start changes nothing that is right already: rewriting YAML costs its comments.
    if merged == existing {
        return Ok(current);
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    replace(path, &merged)?;
    Ok(current)
}

fn merged(mut config: Value, entry: &Entry<'_>, make_current: bool) -> anyhow::Result<Value> {
    if config.is_null() {
        config = json!({});
    }
    let Some(fields) = config.as_object_mut() else {
        bail!("it is not a mapping")
    };
    fields.entry("apiVersion").or_insert_with(|| json!("v1"));
    fields.entry("kind").or_insert_with(|| json!("Config"));
    let items = [
        (
            "clusters",
            json!({"name": CONTEXT, "cluster": {"server": entry.server, "certificate-authority-data": encode(entry.ca_pem),
                "extensions": [{"name": EXTENSION, "extension": {"data": entry.data.display().to_string()}}]}}),
        ),
        (
            "users",
            json!({"name": CONTEXT, "user": {"client-certificate-data": encode(entry.certificate_pem), "client-key-data": encode(entry.key_pem)}}),
        ),
        (
            "contexts",
            json!({"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}),
        ),
    ];
    for (list, item) in items {
        let slot = fields.entry(list).or_insert_with(|| json!([]));
        if slot.is_null() {
            *slot = json!([]);
        }
        let Some(entries) = slot.as_array_mut() else {
            bail!("{list} is not a list")
        };
        match entries
            .iter_mut()
            .find(|present| present["name"] == CONTEXT)
        {
            Some(present) => {
                // A namespace chosen with `kubectl config set-context` stays.
                let namespace = present.pointer("/context/namespace").cloned();
                *present = item;
                if let Some(namespace) = namespace {
                    present["context"]["namespace"] = namespace;
                }
            }
            None => entries.push(item),
        }
    }
    let unset = fields
        .get("current-context")
        .and_then(Value::as_str)
        .is_none_or(str::is_empty);
    if unset || make_current {
        fields.insert("current-context".to_owned(), json!(CONTEXT));
    }
    Ok(config)
}

fn render(config: &Value) -> anyhow::Result<String> {
    // Certificates on one line, as kubectl writes them and as scripts look for them.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(config, options)
        .map_err(|error| anyhow::anyhow!("writing YAML: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            server: "https://127.0.0.1:1",
            ca_pem: "ca",
            certificate_pem: "crt",
            key_pem: "key",
            data: Path::new("/"),
        }
    }

    #[test]
    fn another_instances_context_stays_and_reset_takes_only_its_own() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config");
        let first = Entry {
            data: folder.path(),
            ..entry()
        };
        merge_into(&path, &first, false).expect("first");
        let before = std::fs::read_to_string(&path).expect("text");
        let second = Entry {
            ca_pem: "other",
            data: Path::new("/"),
            ..entry()
        };
        let error = merge_into(&path, &second, true)
            .expect_err("the first one's")
            .to_string();
        assert!(
            error.contains("belongs to the Kinglet with data directory"),
            "{error}"
        );
        assert!(!remove_from(&path, second.data, second.ca_pem).expect("not ours"));
        assert_eq!(std::fs::read_to_string(&path).expect("text"), before);
        // A new authority of the same instance, and an instance whose data is gone, give way.
        let renewed = Entry {
            ca_pem: "new",
            data: folder.path(),
            ..entry()
        };
        merge_into(&path, &renewed, false).expect("the same instance");
        let gone = Entry {
            ca_pem: "gone",
            data: Path::new("/nonexistent/kinglet"),
            ..entry()
        };
        std::fs::remove_file(&path).expect("removed");
        merge_into(&path, &gone, false).expect("one that goes");
        merge_into(&path, &second, false).expect("takes over");
        assert!(remove_from(&path, second.data, second.ca_pem).expect("ours"));
        let left: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(&path).expect("text")).expect("yaml");
        assert_eq!(
            (
                &left["clusters"],
                &left["users"],
                &left["contexts"],
                &left["current-context"]
            ),
            (&json!([]), &json!([]), &json!([]), &json!(""))
        );
        assert!(!remove_from(&path, second.data, second.ca_pem).expect("nothing"));
    }

    #[test]
    fn another_current_context_stays_unless_asked() {
        let theirs = json!({"current-context": "prod", "contexts": [{"name": "prod", "context": {"cluster": "c"}}], "clusters": null});
        let merged_quietly = merged(theirs.clone(), &entry(), false).expect("merges");
        assert_eq!(merged_quietly["current-context"], "prod");
        assert_eq!(merged_quietly["contexts"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            merged(theirs, &entry(), true).expect("merges")["current-context"],
            "kinglet"
        );
    }

    #[test]
    fn merging_twice_keeps_one_entry_and_the_chosen_namespace() {
        let mut config = merged(json!({}), &entry(), false).expect("merges");
        config["contexts"][0]["context"]["namespace"] = json!("mine");
        let again = merged(config, &entry(), false).expect("merges");
        assert_eq!(again["users"].as_array().map(Vec::len), Some(1));
        assert_eq!(again["contexts"][0]["context"]["namespace"], "mine");
        assert_eq!(again["current-context"], "kinglet");
    }

    #[test]
    fn a_foreign_document_is_refused() {
        assert!(merged(json!([1]), &entry(), false).is_err());
        assert!(merged(json!({"users": "x"}), &entry(), false).is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = whole(&entry()).expect("renders");
        let value: Value = serde_saphyr::from_str(&text).expect("parses");
        assert_eq!(
            value["clusters"][0]["cluster"]["server"],
            "https://127.0.0.1:1"
        );
        let long = "x".repeat(500);
        let text = whole(&Entry {
            ca_pem: &long,
            ..entry()
        })
        .expect("renders");
        assert!(
            text.lines().any(|line| line
                .trim_start()
                .starts_with("certificate-authority-data: eHh4")),
            "{text}"
        );
    }

    #[test]
    fn the_users_file_on_disk() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder =
            std::env::temp_dir().join(format!("kinglet-kubeconfig-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let path = folder.join("deep/config");
        let text = |path: &Path| std::fs::read_to_string(path).expect("readable");

        // None there: made, with folders, for its owner only, and ours is current.
        assert!(merge_into(&path, &entry(), false).expect("made"));
        assert_eq!(
            std::fs::metadata(&path).expect("file").permissions().mode() & 0o777,
            0o600
        );
        // Right already: not touched.
        std::fs::write(&path, format!("# mine\n{}", text(&path))).expect("comment");
        assert!(merge_into(&path, &entry(), false).expect("same"));
        assert!(text(&path).starts_with("# mine"));
        // Somebody else's, behind a link, readable by all before.
        let theirs = folder.join("theirs");
        std::fs::write(&theirs, "current-context: prod\nusers:\nclusters: []\ncontexts: null\npreferences: {colors: true}\n").expect("theirs");
        let link = folder.join("link");
        std::os::unix::fs::symlink(&theirs, &link).expect("link");
        assert!(!merge_into(&link, &entry(), false).expect("merged"));
        assert!(std::fs::symlink_metadata(&link).expect("link").is_symlink());
        let merged: Value = serde_saphyr::from_str(&text(&theirs)).expect("parses");
        assert_eq!(
            (
                &merged["current-context"],
                &merged["preferences"]["colors"],
                &merged["users"][0]["name"]
            ),
            (&json!("prod"), &json!(true), &json!("kinglet"))
        );
        assert_eq!(
            std::fs::metadata(&theirs)
                .expect("file")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        // Broken or foreign: refused by name, not touched.
        for broken in ["a: [1", "users: {}\n", "- 1\n", "a: 1\n---\nb: 2\n", "\t{"] {
            std::fs::write(&theirs, broken).expect("broken");
            let error = format!(
                "{:#}",
                merge_into(&theirs, &entry(), false).expect_err(broken)
            );
            assert!(
                error.contains("nothing was changed") && error.contains("theirs"),
                "{error}"
            );
            assert_eq!(text(&theirs), broken);
        }
        std::fs::remove_dir_all(folder).expect("clean");
    }
}
