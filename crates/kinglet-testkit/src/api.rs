//! Objects as JSON over the wire, with the administrator's certificate.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::until;

/// A plain client of the API server.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
}

impl Api {
    /// Connects with a kubeconfig.
    pub async fn open(kubeconfig: &Path) -> anyhow::Result<Self> {
        kinglet_process::tls::install_provider();
        let config = kube::Config::from_custom_kubeconfig(
            Kubeconfig::read_from(kubeconfig)?,
            &KubeConfigOptions::default(),
        )
        .await?;
        Ok(Self {
            client: kube::Client::try_from(config)?,
        })
    }

    /// One request.
    pub async fn call(
        &self,
        method: http::Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Value, kube::Error> {
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body).expect("JSON serializes")
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, content_type)
            .body(bytes)
            .expect("a valid request");
        self.client.request::<Value>(request).await
    }

    /// One request, with all that a client may look at: status code, warnings, body.
    pub async fn exchange(
        &self,
        method: http::Method,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<(u16, Vec<String>, Value)> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, "application/json");
        let response = self
            .client
            .send(request.body(kube::client::Body::from(serde_json::to_vec(body)?))?)
            .await?;
        let code = response.status().as_u16();
        let warnings = response.headers().get_all(http::header::WARNING).iter();
        let warnings = warnings
            .filter_map(|value| Some(warning_text(value.to_str().ok()?)))
            .collect();
        let body = serde_json::from_slice(&response.into_body().collect_bytes().await?)?;
        Ok((code, warnings, body))
    }

    /// GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self
            .call(http::Method::GET, path, "application/json", &Value::Null)
            .await?)
    }

    /// GET of plain text, as logs are.
    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(self.client.request_text(request).await?)
    }

    /// GET, `None` for 404.
    pub async fn find(&self, path: &str) -> anyhow::Result<Option<Value>> {
        match self
            .call(http::Method::GET, path, "application/json", &Value::Null)
            .await
        {
            Ok(found) => Ok(Some(found)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// POST.
    pub async fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        Ok(self
            .call(http::Method::POST, path, "application/json", object)
            .await?)
    }

    /// JSON merge patch.
    pub async fn merge(&self, path: &str, patch: &Value) -> anyhow::Result<Value> {
        Ok(self
            .call(
                http::Method::PATCH,
                path,
                "application/merge-patch+json",
                patch,
            )
            .await?)
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self
            .call(
                http::Method::DELETE,
                path,
                "application/json",
                &json!({"propagationPolicy": "Background"}),
            )
            .await?)
    }

    /// Server-side apply of one object whose collection path is given.
    pub async fn apply(&self, collection: &str, object: &Value) -> anyhow::Result<Value> {
        let name = object["metadata"]["name"]
            .as_str()
            .context("an object has a name")?;
        Ok(self
            .call(
                http::Method::PATCH,
                &format!("{collection}/{name}?fieldManager=testkit&force=true"),
                "application/apply-patch+yaml",
                object,
            )
            .await?)
    }

    /// Waits for a condition that belongs to the object's current generation.
    pub async fn condition(
        &self,
        path: &str,
        name: &str,
        status: &str,
        limit: Duration,
    ) -> anyhow::Result<Value> {
        until(&format!("{name}={status} of {path}"), limit, || async {
            let object = self.get(path).await?;
            let current = object["metadata"]["generation"].as_i64().unwrap_or(0)
                == object["status"]["observedGeneration"].as_i64().unwrap_or(0);
            let conditions = object["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            match conditions
                .iter()
                .find(|condition| condition["type"] == name)
            {
                Some(condition) if current && condition["status"] == status => Ok(Some(object)),
                _ => bail!("{}", Value::from(conditions)),
            }
        })
        .await
    }
}

/// Path of a collection of Knative Serving in a namespace.
pub fn serving(namespace: &str, plural: &str) -> String {
    format!("/apis/serving.knative.dev/v1/namespaces/{namespace}/{plural}")
}

/// A Knative Service with one container of a sample.
pub fn sample_service(name: &str, namespace: &str, sample: &str) -> Value {
    json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [{"image": format!("samples.kinglet/{sample}")}]}}}
    })
}

/// The text of a `Warning` header: `299 - "text"`.
fn warning_text(header: &str) -> String {
    let quoted = header
        .split_once('"')
        .map_or(header, |(_, rest)| rest.trim_end().trim_end_matches('"'));
    quoted.replace("\\\"", "\"").replace("\\\\", "\\")
}
