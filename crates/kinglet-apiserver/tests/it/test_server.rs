//! A server with a namespace, and raw requests.

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use kinglet_apiserver::{ApiServer, Body, Identity, Options};
use kinglet_store::Store;
use serde_json::{Value, json};
use tower::Service as _;

pub(crate) struct TestServer {
    pub(crate) api: ApiServer,
    pub(crate) user: Identity,
}

pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) text: String,
    pub(crate) warnings: Vec<String>,
    pub(crate) media: String,
}

impl TestServer {
    /// An empty server on which `default` and its account exist; requests come from an administrator outside.
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let api = ApiServer::new(Store::in_memory(ApiServer::store_options()), options);
        let server = Self {
            api,
            user: Identity::remote("admin", vec!["system:masters".to_owned()]),
        };
        server.namespace("default").await;
        server
    }

    pub(crate) async fn namespace(&self, name: &str) {
        let made = self
            .post(
                "/api/v1/namespaces",
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            )
            .await;
        assert_eq!(made.code, 201, "{}", made.text);
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        assert_eq!(
            self.post(
                &format!("/api/v1/namespaces/{name}/serviceaccounts"),
                account
            )
            .await
            .code,
            201
        );
    }

    pub(crate) async fn raw(
        &self,
        user: &Identity,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Response<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::USER_AGENT, "kubectl/v1.34");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let Ok(response) = self
            .api
            .service(user.clone())
            .call(request.body(Full::new(Bytes::from(body))).unwrap())
            .await;
        response
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Reply {
        let response = self.raw(&self.user, method, path, headers, body).await;
        read(response).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, &[], Vec::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.ask(
            Method::POST,
            path,
            &[("content-type", "application/json")],
            body.to_string().into_bytes(),
        )
        .await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.ask(
            Method::PUT,
            path,
            &[("content-type", "application/json")],
            body.to_string().into_bytes(),
        )
        .await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, body: Value) -> Reply {
        let media = format!("application/{kind}");
        self.ask(
            Method::PATCH,
            path,
            &[("content-type", media.as_str())],
            body.to_string().into_bytes(),
        )
        .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.ask(Method::DELETE, path, &[], Vec::new()).await
    }

    pub(crate) async fn table(&self, path: &str) -> Reply {
        self.ask(
            Method::GET,
            path,
            &[(
                "accept",
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            )],
            Vec::new(),
        )
        .await
    }
}

fn header_values(response: &Response<Body>, name: &header::HeaderName) -> Vec<String> {
    response
        .headers()
        .get_all(name)
        .iter()
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

pub(crate) async fn read(response: Response<Body>) -> Reply {
    let code = response.status().as_u16();
    let warnings = header_values(&response, &header::WARNING);
    let media = header_values(&response, &header::CONTENT_TYPE).concat();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Reply {
        code,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
        text,
        warnings,
        media,
    }
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "example.com/app:1"}]}})
}

pub(crate) fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "nginx"}]}}}})
}

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
