//! Generates the field table of Kubernetes' built-in kinds: what the API server must know of kinds it has no schema for.
//!
//! Flow: the published Go types of `k8s.io/api` and `k8s.io/apimachinery` (fetched by `go mod download`) -> **here** ->
//! `crates/kinglet-apiserver/src/fields/builtin.txt`. The Go sources rather than `generated.proto`, since only they say
//! under which JSON name a field goes, whether it is inlined, and how its lists merge.

mod go;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use go::{fields, imports, resolve};

const KUBERNETES: &str = "v0.34.4";

/// Go module, folder in it, name in the table, API group, prefix of the name in OpenAPI.
struct Package {
    module: &'static str,
    folder: &'static str,
    id: &'static str,
    group: &'static str,
    openapi: &'static str,
}

const fn api(folder: &'static str, group: &'static str, openapi: &'static str) -> Package {
    Package {
        module: "k8s.io/api",
        folder,
        id: folder,
        group,
        openapi,
    }
}

const PACKAGES: &[Package] = &[
    Package {
        module: "k8s.io/apimachinery",
        folder: "pkg/apis/meta/v1",
        id: "meta/v1",
        group: "meta.k8s.io",
        openapi: "io.k8s.apimachinery.pkg.apis.meta.v1",
    },
    api("core/v1", "", "io.k8s.api.core.v1"),
    api("apps/v1", "apps", "io.k8s.api.apps.v1"),
    api("batch/v1", "batch", "io.k8s.api.batch.v1"),
    api("autoscaling/v1", "autoscaling", "io.k8s.api.autoscaling.v1"),
    api("autoscaling/v2", "autoscaling", "io.k8s.api.autoscaling.v2"),
    api(
        "authentication/v1",
        "authentication.k8s.io",
        "io.k8s.api.authentication.v1",
    ),
    api(
        "authorization/v1",
        "authorization.k8s.io",
        "io.k8s.api.authorization.v1",
    ),
    api(
        "coordination/v1",
        "coordination.k8s.io",
        "io.k8s.api.coordination.v1",
    ),
    api(
        "discovery/v1",
        "discovery.k8s.io",
        "io.k8s.api.discovery.v1",
    ),
    api("events/v1", "events.k8s.io", "io.k8s.api.events.v1"),
    api(
        "networking/v1",
        "networking.k8s.io",
        "io.k8s.api.networking.v1",
    ),
    api("policy/v1", "policy", "io.k8s.api.policy.v1"),
    api("rbac/v1", "rbac.authorization.k8s.io", "io.k8s.api.rbac.v1"),
    api(
        "scheduling/v1",
        "scheduling.k8s.io",
        "io.k8s.api.scheduling.v1",
    ),
    api("storage/v1", "storage.k8s.io", "io.k8s.api.storage.v1"),
    api("node/v1", "node.k8s.io", "io.k8s.api.node.v1"),
    api(
        "certificates/v1",
        "certificates.k8s.io",
        "io.k8s.api.certificates.v1",
    ),
    api(
        "admissionregistration/v1",
        "admissionregistration.k8s.io",
        "io.k8s.api.admissionregistration.v1",
    ),
    Package {
        module: "k8s.io/apiextensions-apiserver",
        folder: "pkg/apis/apiextensions/v1",
        id: "apiextensions/v1",
        group: "apiextensions.k8s.io",
        openapi: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
    },
];

/// Types with their own JSON form: name in the table, keyword.
const SPECIAL: &[(&str, &str)] = &[
    ("resource.Quantity", "quantity"),
    ("intstr.IntOrString", "intstr"),
    ("runtime.RawExtension", "raw"),
    ("meta/v1.Time", "time"),
    ("meta/v1.MicroTime", "microtime"),
    ("meta/v1.Duration", "duration"),
    ("meta/v1.FieldsV1", "fieldsv1"),
    ("apiextensions/v1.JSON", "any"),
    ("apiextensions/v1.JSONSchemaPropsOrArray", "any"),
    ("apiextensions/v1.JSONSchemaPropsOrBool", "any"),
    ("apiextensions/v1.JSONSchemaPropsOrStringArray", "any"),
    ("types.UID", "string"),
    ("types.NodeName", "string"),
    ("types.NamespacedName", "any"),
    ("runtime.Object", "any"),
];

const SCALARS: &[&str] = &["string", "bool", "int32", "int64", "float64", "any"];

/// Writes the table. `args`: where to (default: its place in the tree).
pub(crate) fn run(args: &[String]) -> Result<()> {
    let target = args.first().map_or_else(
        || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../kinglet-apiserver/src/fields/builtin.txt")
        },
        PathBuf::from,
    );
    let mut modules = BTreeMap::new();
    let mut found = Found::default();
    for package in PACKAGES {
        if !modules.contains_key(package.module) {
            modules.insert(package.module, download(package.module)?);
        }
        let folder = modules[package.module].join(package.folder);
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .with_context(|| format!("listing {}", folder.display()))?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        files.sort();
        for file in files {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let relevant =
                name.ends_with(".go") && !name.contains("generated") && !name.ends_with("_test.go");
            if relevant {
                let text = std::fs::read_to_string(&file)
                    .with_context(|| format!("reading {}", file.display()))?;
                found
                    .read(package.id, &text)
                    .with_context(|| format!("in {}", file.display()))?;
            }
        }
    }
    let table = found.write()?;
    std::fs::write(&target, table).with_context(|| format!("writing {}", target.display()))?;
    Ok(())
}

/// Where `go mod download` put a module.
fn download(module: &str) -> Result<PathBuf> {
    let folder =
        std::env::temp_dir().join(format!("kinglet-protobuf-table-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let output = Command::new("go")
        .args([
            "mod",
            "download",
            "-json",
            &format!("{module}@{KUBERNETES}"),
        ])
        .current_dir(&folder)
        .env("GOFLAGS", "-mod=mod")
        .output()
        .context("running go (needed to fetch the published types)")?;
    std::fs::remove_dir_all(&folder).ok();
    if !output.status.success() {
        bail!(
            "go mod download {module}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let answer: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("reading go's answer")?;
    let dir = answer["Dir"].as_str().context("go named no folder")?;
    Ok(Path::new(dir).to_owned())
}

#[derive(Default)]
struct Found {
    structs: BTreeMap<String, Struct>,
    aliases: BTreeMap<String, String>,
}

#[derive(Default)]
struct Struct {
    atomic: bool,
    fields: Vec<Field>,
}

struct Field {
    number: u32,
    name: String,
    kind: String,
    marks: Vec<String>,
}

impl Found {
    fn read(&mut self, package: &str, text: &str) -> Result<()> {
        let imports = imports(text);
        let mut comment: Vec<String> = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(text) = line.strip_prefix("//") {
                comment.push(text.trim().to_owned());
                continue;
            }
            let Some(rest) = line.strip_prefix("type ") else {
                comment.clear();
                continue;
            };
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            let kind = kind.trim();
            let id = format!("{package}.{name}");
            if kind == "struct {" {
                let atomic = comment.iter().any(|c| c == "+structType=atomic");
                let mut body = Vec::new();
                for line in lines.by_ref() {
                    if line == "}" {
                        break;
                    }
                    body.push(line);
                }
                let fields =
                    fields(&body, package, &imports).with_context(|| format!("type {id}"))?;
                self.structs.insert(id, Struct { atomic, fields });
            } else if kind.starts_with("struct{}") || kind == "struct { }" {
                self.structs.insert(id, Struct::default());
            } else if !kind.is_empty()
                && !kind.starts_with("struct")
                && !kind.starts_with("interface")
                && !kind.starts_with("func")
            {
                let kind = kind
                    .split(" //")
                    .next()
                    .unwrap_or(kind)
                    .trim_start_matches("= ");
                self.aliases.insert(id, resolve(kind, package, &imports));
            }
            comment.clear();
        }
        Ok(())
    }

    /// Types used by others' fields, all kinds, and nothing else.
    fn write(&self) -> Result<String> {
        let special: BTreeSet<&str> = SPECIAL.iter().map(|(name, _)| *name).collect();
        let mut used = BTreeSet::new();
        let mut queue: Vec<String> = self
            .structs
            .iter()
            .filter(|(_, s)| s.fields.iter().any(|f| f.kind == "meta/v1.TypeMeta"))
            .map(|(id, _)| id.clone())
            .collect();
        while let Some(id) = queue.pop() {
            if !used.insert(id.clone()) || special.contains(id.as_str()) {
                continue;
            }
            let kinds: Vec<&str> = match (self.structs.get(&id), self.aliases.get(&id)) {
                (Some(s), _) => s.fields.iter().map(|f| f.kind.as_str()).collect(),
                (None, Some(alias)) => vec![alias.as_str()],
                (None, None) => bail!("type {id} is used but not declared"),
            };
            for kind in kinds {
                let bare = bare(kind);
                if !SCALARS.contains(&bare)
                    && bare != "bytes"
                    && !SPECIAL.iter().any(|(_, word)| *word == bare)
                {
                    queue.push(bare.to_owned());
                }
            }
        }
        let mut out = String::from(
            "# Fields of Kubernetes' built-in kinds; generated by `cargo xtask protobuf-table` from the Go types of\n\
             # k8s.io/api, k8s.io/apimachinery and k8s.io/apiextensions-apiserver ",
        );
        writeln!(out, "{KUBERNETES}. The format is described in fields.rs.")?;
        for package in PACKAGES {
            let group = if package.group.is_empty() {
                "-"
            } else {
                package.group
            };
            writeln!(out, "%{} {group} {}", package.id, package.openapi)?;
        }
        for (id, alias) in &self.aliases {
            if used.contains(id) && !special.contains(id.as_str()) {
                writeln!(out, "~{id} {alias}")?;
            }
        }
        for (id, s) in &self.structs {
            if !used.contains(id) || special.contains(id.as_str()) {
                continue;
            }
            writeln!(out, "@{id}{}", if s.atomic { " atomic" } else { "" })?;
            for field in &s.fields {
                write!(out, "{} {} {}", field.number, field.name, field.kind)?;
                for mark in &field.marks {
                    write!(out, " {mark}")?;
                }
                out.push('\n');
            }
        }
        Ok(out)
    }
}

/// The named type inside pointers, lists and maps.
fn bare(kind: &str) -> &str {
    kind.trim_start_matches(['*', '[', ']', '{', '}'])
}
