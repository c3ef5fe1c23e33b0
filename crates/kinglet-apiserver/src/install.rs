//! Installing CRDs at boot, through the same door as everybody.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tower::Service as _;

use crate::identity::Identity;
use crate::object;
use crate::server::ApiServer;
use crate::status::Status;

const PLACE: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

impl ApiServer {
    /// Creates a CustomResourceDefinition, or updates it where its specification, labels or annotations differ.
    pub async fn install(&self, definition: Value) -> Result<(), Status> {
        let name = object::name(&definition).to_owned();
        match self.ask(Method::POST, PLACE, Some(&definition)).await {
            Err(status) if status.reason == "AlreadyExists" => {}
            result => return result.map(drop),
        }
        let place = format!("{PLACE}/{name}");
        let mut now = self.ask(Method::GET, &place, None).await?;
        for (key, value) in definition.as_object().into_iter().flatten() {
            if key == "spec" {
                now["spec"] = value.clone();
            }
        }
        for key in ["labels", "annotations"] {
            for (name, value) in object::at(&definition, &["metadata", key])
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                object::child(object::meta(&mut now), key).insert(name.clone(), value.clone());
            }
        }
        self.ask(Method::PUT, &place, Some(&now)).await.map(drop)
    }

    async fn ask(
        &self,
        method: Method,
        place: &str,
        body: Option<&Value>,
    ) -> Result<Value, Status> {
        let bytes = body
            .map(|body| Bytes::from(body.to_string()))
            .unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(place)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "kinglet")
            .body(Full::new(bytes))
            .map_err(Status::internal)?;
        let mut service = self.service(Identity::in_process("system:apiserver"));
        let Ok(response) = service.call(request).await;
        let code = response.status();
        let Ok(collected) = response.into_body().collect().await;
        let value: Value = serde_json::from_slice(&collected.to_bytes()).unwrap_or_default();
        if code.is_success() || code == StatusCode::NOT_MODIFIED {
            return Ok(value);
        }
        let mut status = Status::new(
            code.as_u16(),
            object::text(&value, &["reason"]),
            object::text(&value, &["message"]),
        );
        status.details = value["details"].as_object().cloned().unwrap_or_default();
        Err(status)
    }
}
