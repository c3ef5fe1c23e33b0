//! A connection to an API server, and its refusals in words.

use std::path::Path;

use anyhow::{Context as _, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use crate::args::Target;
use crate::{control, location};

/// A client with the namespace that commands use by default.
pub struct Connection {
    client: kube::Client,
    server: String,
    /// Default namespace.
    pub namespace: String,
}

impl Connection {
    /// `--kubeconfig`, else the running Kinglet's own, else what kubectl would use.
    pub async fn open(target: &Target) -> anyhow::Result<Self> {
        let data = location::data_directory(&target.data);
        let own = location::own_kubeconfig(&data);
        let kubeconfig = if let Some(path) = &target.kubeconfig {
            Kubeconfig::read_from(path)
                .with_context(|| format!("reading kubeconfig {}", path.display()))?
        } else if target.context.is_none() && readable(&own) {
            // A kubeconfig stays when its Kinglet stops.
            if !control::is_running(&data).await {
                return Err(control::not_running(&data));
            }
            Kubeconfig::read_from(&own)
                .with_context(|| format!("reading kubeconfig {}", own.display()))?
        } else if target.context.is_none() && target.data.data.is_some() {
            return Err(control::not_running(&data));
        } else {
            Kubeconfig::read().context("no running Kinglet was found, and no kubeconfig (start one with `kinglet up`, or name a file with --kubeconfig)")?
        };
        let options = KubeConfigOptions {
            context: target.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .context("using the kubeconfig")?;
        let server = config.cluster_url.to_string();
        let namespace = target
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        segment(&namespace).context("--namespace")?;
        Ok(Self {
            client: kube::Client::try_from(config).context("setting up the connection")?,
            server,
            namespace,
        })
    }

    /// One request, one JSON answer; a `Status` failure becomes an error.
    pub async fn call(
        &self,
        method: http::Method,
        path: &str,
        content_type: &str,
        accept: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Value> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::ACCEPT, accept)
            .header(http::header::CONTENT_TYPE, content_type)
            .body(body)?;
        self.client
            .request::<Value>(request)
            .await
            .map_err(|error| self.explain(error))
    }

    /// Reads JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(
            http::Method::GET,
            path,
            "application/json",
            "application/json",
            Vec::new(),
        )
        .await
    }

    /// Reads JSON, `None` for 404.
    pub async fn find(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let request = http::Request::get(path).body(Vec::new())?;
        match self.client.request::<Value>(request).await {
            Ok(value) => Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// An answer that comes in lines.
    pub async fn lines(
        &self,
        path: &str,
    ) -> anyhow::Result<impl futures_util::AsyncBufRead + use<>> {
        let request = http::Request::get(path).body(Vec::new())?;
        self.client
            .request_stream(request)
            .await
            .map_err(|error| self.explain(error))
    }

    /// The server's own sentence, or what went wrong on the way to it.
    fn explain(&self, error: kube::Error) -> anyhow::Error {
        match error {
            kube::Error::Api(status) => {
                let reason = if status.reason.is_empty() {
                    status.code.to_string()
                } else {
                    status.reason.clone()
                };
                anyhow::anyhow!("the server refused ({reason}): {}", status.message)
            }
            other if connection_refused(&other) => anyhow::anyhow!(
                "nothing answers at {}: Kinglet is not running there (start it with `kinglet up`; `kinglet status` tells more)",
                self.server
            ),
            other => anyhow::Error::new(other)
                .context(format!("talking to the API server {}", self.server)),
        }
    }
}

fn readable(path: &Path) -> bool {
    std::fs::File::open(path).is_ok()
}

/// Whether nobody listens there.
fn connection_refused(error: &kube::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Splits `TYPE/NAME…` or `TYPE NAME…` into types and names of each.
pub fn types_and_names<'a>(
    words: impl IntoIterator<Item = &'a String>,
) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let words: Vec<&String> = words.into_iter().collect();
    let Some((first, rest)) = words.split_first() else {
        return Ok(Vec::new());
    };
    let grouped = if words.iter().all(|word| word.contains('/')) {
        words
            .iter()
            .filter_map(|word| word.split_once('/'))
            .map(|(kind, name)| (kind.to_owned(), vec![name.to_owned()]))
            .collect()
    } else if words.iter().any(|word| word.contains('/')) {
        let all = words
            .iter()
            .map(|word| word.as_str())
            .collect::<Vec<_>>()
            .join(" ");
        bail!("write either TYPE/NAME or TYPE NAME, not both: {all}");
    } else {
        vec![(
            (*first).clone(),
            rest.iter().map(|name| (*name).clone()).collect(),
        )]
    };
    for (kind, names) in &grouped {
        if kind.is_empty() {
            bail!("a type is missing before the name {:?}", names.join(" "));
        }
        names.iter().try_for_each(|name| segment(name))?;
    }
    Ok(grouped)
}

/// A name becomes a part of a path: what cannot be one is refused before the server is asked something else.
pub fn segment(name: &str) -> anyhow::Result<()> {
    let fits = !name.is_empty()
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
    if fits {
        Ok(())
    } else {
        bail!("{name:?} is no name of an object: letters, digits, '-' and '.' make one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(line: &str) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        types_and_names(&words)
    }

    #[test]
    fn both_ways_to_name_objects() {
        let of = |kind: &str, names: &[&str]| {
            (
                kind.to_owned(),
                names
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        for (line, wanted) in [
            ("ksvc", vec![of("ksvc", &[])]),
            ("ksvc a b", vec![of("ksvc", &["a", "b"])]),
            ("ksvc/a pod/b", vec![of("ksvc", &["a"]), of("pod", &["b"])]),
            ("ksvc,pods", vec![of("ksvc,pods", &[])]),
        ] {
            assert_eq!(grouped(line).expect(line), wanted);
        }
        for (line, wanted) in [
            ("ksvc/a b", "not both"),
            ("a ksvc/b", "not both"),
            ("/a", "type is missing"),
            ("ksvc/", "no name"),
            ("ksvc a?x=1", "no name"),
            ("pod ..", "no name"),
        ] {
            let error = grouped(line).expect_err(line).to_string();
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }
}
