//! Rules of Triggers.

use serde_json::Value;

use super::{Judge, delivery, filters};
use crate::admission::look;
use crate::field::Findings;
use crate::keys;

/// Why a reference to a Broker or channel has no namespace.
pub(super) const NO_NAMESPACE: &str = "only name, apiVersion and kind are supported fields when feature.CrossNamespaceEventLinks is disabled";

impl Judge<'_> {
    pub(super) fn trigger(&self) -> Findings {
        let mut found = self.trigger_spec().under("spec");
        found.add(self.judged_annotation(keys::DEPENDENCY, |text| {
            dependency(text, self.review.namespace)
        }));
        found.add(self.judged_annotation(keys::INJECTION, |text| {
            injection(text, look::text(self.spec, "broker"))
        }));
        found.add(self.link(look::at(self.spec, "brokerRef")));
        found.add(self.immutable_field("broker", "{string}"));
        found.add(self.immutable_field("brokerRef", "{*v1.KReference}"));
        found
    }

    fn trigger_spec(&self) -> Findings {
        let references = self.references();
        let named = !look::text(self.spec, "broker").is_empty();
        let broker = look::at(self.spec, "brokerRef");
        let mut found = match (named, broker.is_null()) {
            (false, true) => Findings::missing("broker"),
            (true, false) => Findings::several_of(&["broker", "brokerRef"]),
            (true, true) | (false, false) => Findings::none(),
        };
        let features = &self.configs.features;
        if !look::text(broker, "namespace").is_empty() && !features.links_namespaces() {
            found.add(Findings::disallowed("namespace").details(NO_NAMESPACE));
        }
        found.add(filters::validate(self.spec));
        let subscriber = look::at(self.spec, "subscriber");
        found.add(references.destination(subscriber).under("subscriber"));
        found.add(delivery::validate(self.spec, features, references));
        found
    }

    fn judged_annotation(&self, key: &str, judge: impl Fn(&str) -> Findings) -> Findings {
        self.annotation(key)
            .map(|text| judge(text).under(&format!("metadata.annotations[{key}]")))
            .unwrap_or_default()
    }
}

/// The object that a Trigger waits for, as an ObjectReference in JSON.
fn dependency(text: &str, namespace: &str) -> Findings {
    let reference: Value = match serde_json::from_str(text) {
        Ok(reference @ Value::Object(_)) => reference,
        Ok(_) => return no_reference(text, "it is no JSON object"),
        Err(error) => return no_reference(text, &error.to_string()),
    };
    let mut found = Findings::none();
    let own = look::text(&reference, "namespace");
    if !own.is_empty() && own != namespace {
        found.add(Findings::error(
            format!("Namespace must be empty or equal to the trigger namespace {namespace:?}"),
            "namespace",
        ));
    }
    for field in ["kind", "name", "apiVersion"] {
        if look::text(&reference, field).is_empty() {
            found.add(Findings::missing(field));
        }
    }
    found
}

fn no_reference(text: &str, why: &str) -> Findings {
    Findings::error(
        format!(
            "The provided annotation was not a corev1.ObjectReference: {}",
            crate::go::quote(text)
        ),
        "",
    )
    .details(why)
}

fn injection(text: &str, broker: &str) -> Findings {
    if !matches!(text, "enabled" | "disabled") {
        return Findings::error(
            format!(
                "The provided injection annotation value can only be \"enabled\" or \"disabled\", not {}",
                crate::go::quote(text)
            ),
            "",
        );
    }
    if broker != "default" {
        return Findings::error(
            format!(
                "The provided injection annotation is only used for default broker, but non-default broker specified here: {}",
                crate::go::quote(broker)
            ),
            "",
        );
    }
    Findings::none()
}
