//! What `docker login` keeps for a registry: docker's `config.json`, and the credential helpers that it names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use kinglet_image::{Credentials, ImageName};
use serde::Deserialize;
use serde_json::json;

use crate::location;

/// User and password.
pub(super) type Pair = (String, String);

/// The parts of a `config.json` that say where credentials are.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Auth>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    identitytoken: String,
}

/// The credentials for an image, `None` where docker has none.
pub(super) fn stored(name: &ImageName) -> anyhow::Result<Option<Pair>> {
    let folder = std::env::var_os("DOCKER_CONFIG")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| location::home().map(|home| home.join(".docker")));
    let Some(file) = folder.map(|folder| folder.join("config.json")) else {
        return Ok(None);
    };
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("reading docker's {}", file.display()));
        }
    };
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = look_up(name, &text, |helper| is_program(helper, &search))
        .with_context(|| format!("reading docker's {}", file.display()))?;
    match found {
        Found::Nothing => Ok(None),
        Found::Pair(pair) => Ok(Some(pair)),
        Found::MissingHelper(program) => {
            // Docker Desktop's file on a machine without it is common, and most images ask for no credentials.
            anstream::eprintln!(
                "Warning: {} names the credential helper {program}, which is not in PATH; asking {} without credentials (give them with --creds)",
                file.display(),
                name.registry
            );
            Ok(None)
        }
        Found::Helper(program) => ask_helper(&program, &server(&name.registry), &file),
    }
}

/// Where the credentials of an image are.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Pair(Pair),
    /// A program has them.
    Helper(String),
    /// A program that is not here has them.
    MissingHelper(String),
}

/// What the text of a `config.json` says about an image: a helper for its registry, an entry, the helper for the rest.
fn look_up(name: &ImageName, text: &str, is_here: impl Fn(&str) -> bool) -> anyhow::Result<Found> {
    if text.trim().is_empty() {
        return Ok(Found::Nothing);
    }
    let document: serde_json::Value = serde_json::from_str(text)?;
    anyhow::ensure!(document.is_object(), "it is no JSON object");
    let config = Config::deserialize(&document)?;
    let helper = |helper: &str| {
        let program = format!("docker-credential-{helper}");
        if is_here(&program) {
            Found::Helper(program)
        } else {
            Found::MissingHelper(program)
        }
    };
    let server = server(&name.registry);
    if let Some(own) = config
        .cred_helpers
        .get(&server)
        .filter(|own| !own.is_empty())
    {
        return Ok(helper(own));
    }
    let mut credentials = Credentials::default();
    // Without the rest: a document without `auths` would be taken for the older form of the file.
    let entries = document.get("auths").cloned().unwrap_or_default();
    let entries = json!({"auths": if entries.is_null() { json!({}) } else { entries }});
    credentials
        .add_docker_config(entries.to_string().as_bytes())
        .map_err(|message| anyhow::anyhow!("{message}"))?;
    if let Some((user, password)) = credentials.find(&name.repository_path()) {
        return Ok(Found::Pair((user.to_owned(), password.to_owned())));
    }
    let token = config.auths.get(&server).map(|auth| &auth.identitytoken);
    if token.is_some_and(|token| !token.is_empty()) {
        bail!(
            "it has an identity token for {}, which is not supported; use --creds",
            name.registry
        );
    }
    if config.creds_store.is_empty() {
        return Ok(Found::Nothing);
    }
    Ok(helper(&config.creds_store))
}

/// Docker Hub is stored under the address of its first API.
fn server(registry: &str) -> String {
    match registry {
        "docker.io" | "index.docker.io" => "https://index.docker.io/v1/".to_owned(),
        registry => registry.to_owned(),
    }
}

fn is_program(name: &str, search: &std::ffi::OsStr) -> bool {
    std::env::split_paths(search).any(|folder| folder.join(name).is_file())
}

fn ask_helper(program: &str, server: &str, file: &Path) -> anyhow::Result<Option<Pair>> {
    use CredentialRetrievalError as Missing;
    match docker_credential::get_credential(server) {
        Ok(DockerCredential::UsernamePassword(user, password)) => Ok(Some((user, password))),
        Ok(DockerCredential::IdentityToken(_)) => bail!(
            "{program} has an identity token for {server}, which is not supported; use --creds"
        ),
        Err(Missing::ConfigNotFound | Missing::NoCredentialConfigured) => Ok(None),
        // A helper answers so for a registry that it does not know.
        Err(Missing::HelperFailure { stdout, stderr, .. })
            if stdout.contains("not found") || stderr.contains("not found") =>
        {
            Ok(None)
        }
        Err(error) => {
            let said = error.to_string();
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            bail!(
                "asking {program}, which {} names, for the credentials of {server}: {said}; use --creds",
                file.display()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_per_configuration() {
        let pair = |user: &str| Found::Pair((user.to_owned(), "secret".to_owned()));
        let here = || Found::Helper("docker-credential-here".to_owned());
        let gone = || Found::MissingHelper("docker-credential-gone".to_owned());
        for (image, config, expected) in [
            ("r.test/a", "", Found::Nothing),
            ("r.test/a", "{}", Found::Nothing),
            ("r.test/a", r#"{"credsStore": ""}"#, Found::Nothing),
            ("r.test/a", r#"{"credsStore": "here"}"#, here()),
            ("r.test/a", r#"{"credsStore": "gone"}"#, gone()),
            (
                "r.test/a",
                r#"{"credHelpers": {"r.test": "here"}, "credsStore": "gone"}"#,
                here(),
            ),
            (
                "other.test/a",
                r#"{"credHelpers": {"r.test": "here"}}"#,
                Found::Nothing,
            ),
            (
                "r.test/a",
                r#"{"auths": {"r.test": {"auth": "dXNlcjpzZWNyZXQ="}}, "credsStore": "gone"}"#,
                pair("user"),
            ),
            // Docker leaves empty entries for what its store keeps.
            (
                "r.test/a",
                r#"{"auths": {"r.test": {}}, "credsStore": "here"}"#,
                here(),
            ),
            (
                "r.test/team/a",
                r#"{"auths": {"r.test": {"auth": "b3RoZXI6c2VjcmV0"}, "r.test/team": {"auth": "dXNlcjpzZWNyZXQ="}}}"#,
                pair("user"),
            ),
            (
                "nginx",
                r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpzZWNyZXQ="}}}"#,
                pair("user"),
            ),
        ] {
            let name = ImageName::parse(image).expect(image);
            let found = look_up(&name, config, |program| program.ends_with("-here"));
            assert_eq!(found.expect(config), expected, "{image} {config}");
        }
        let name = ImageName::parse("r.test/a").expect("name");
        for (config, wanted) in [
            ("{", "EOF"),
            ("[]", "no JSON object"),
            (
                r#"{"auths": {"r.test": {"identitytoken": "t"}}}"#,
                "identity token for r.test",
            ),
        ] {
            let error = look_up(&name, config, |_| true).expect_err(config);
            assert!(format!("{error:#}").contains(wanted), "{error:#}");
        }
    }
}
