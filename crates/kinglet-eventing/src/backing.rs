//! The channel behind a Broker or a Channel: of any kind, made from a template.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kinglet_api::destination::{Lookup, Target};
use kinglet_api::duck::{ChannelableStatus, DeliverySpec};
use kinglet_api::messaging::ChannelTemplate;
use kinglet_reconcile::ResourceKind;
use serde_json::{Map, Value, json};

use crate::data_plane::ChannelId;
use crate::targets::Look;

/// What is known about such a channel.
#[derive(Clone, Debug)]
pub(crate) struct Backing {
    /// Its kind, if the API server serves it.
    pub(crate) kind: Option<Arc<ResourceKind>>,
    /// The object.
    pub(crate) found: Option<Value>,
}

impl Backing {
    pub(crate) async fn observe(
        look: &mut Look<'_>,
        template: &ChannelTemplate,
        namespace: &str,
        name: &str,
    ) -> Self {
        let target = target(template, namespace, name);
        let found = match look.find(&target).await {
            Lookup::Found(object) => Some(object),
            Lookup::Missing | Lookup::UnknownKind => None,
        };
        Self {
            kind: look.kind(&target).await,
            found,
        }
    }

    /// Its status, empty while there is none.
    pub(crate) fn status(&self) -> ChannelableStatus {
        let status = self.found.as_ref().map(|object| object["status"].clone());
        status
            .and_then(|status| serde_json::from_value(status).ok())
            .unwrap_or_default()
    }

    /// Which one it is for the data plane.
    pub(crate) fn id(&self) -> Option<ChannelId> {
        let object = self.found.as_ref()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        Some(ChannelId {
            kind: self.kind.as_ref()?.kind.clone(),
            key: kinglet_reconcile::Key::new(text(&metadata["namespace"]), text(&metadata["name"])),
            uid: text(&metadata["uid"]),
        })
    }
}

/// Why a channel of that kind cannot be made.
pub(crate) fn unknown_kind(template: &ChannelTemplate) -> String {
    format!(
        "there is no kind {:?} in {}; name another kind of channel, or install this one",
        template.kind, template.api_version
    )
}

fn target(template: &ChannelTemplate, namespace: &str, name: &str) -> Target {
    let (group, version) = template
        .api_version
        .split_once('/')
        .unwrap_or(("", &template.api_version));
    Target {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: template.kind.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// A channel as it is made.
pub(crate) struct Wanted<'w> {
    pub(crate) template: &'w ChannelTemplate,
    pub(crate) namespace: &'w str,
    pub(crate) name: &'w str,
    pub(crate) owner: OwnerReference,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) delivery: Option<&'w DeliverySpec>,
}

impl Wanted<'_> {
    /// The object; where the template says something, it has the last word.
    pub(crate) fn build(&self) -> Value {
        let mut metadata = json!({
            "name": self.name,
            "namespace": self.namespace,
            "ownerReferences": [&self.owner],
        });
        for (field, pairs) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            if !pairs.is_empty() {
                metadata[field] = json!(pairs);
            }
        }
        json!({
            "apiVersion": self.template.api_version,
            "kind": self.template.kind,
            "metadata": metadata,
            "spec": self.spec(),
        })
    }

    /// The object as found, with labels, annotations and delivery as they shall be; nothing if they are.
    pub(crate) fn mended(&self, found: &Value) -> Option<Value> {
        let mut mended = found.clone();
        for (field, pairs) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            for (key, value) in pairs {
                mended["metadata"][field][key] = json!(value);
            }
        }
        let spec = self.spec();
        match spec.get("delivery") {
            Some(delivery) => mended["spec"]["delivery"] = delivery.clone(),
            None => {
                if let Some(Value::Object(spec)) = mended.get_mut("spec") {
                    spec.remove("delivery");
                }
            }
        }
        (mended != *found).then_some(mended)
    }

    fn spec(&self) -> Value {
        let mut spec = Map::new();
        if let Some(delivery) = self.delivery {
            spec.insert("delivery".to_owned(), json!(delivery));
        }
        let mut spec = Value::Object(spec);
        if let Some(template) = &self.template.spec {
            merge(&mut spec, template);
        }
        spec
    }
}

/// Lays `over` on `base`.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (base, over) => *base = over.clone(),
    }
}
