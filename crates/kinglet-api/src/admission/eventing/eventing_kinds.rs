//! Rules of Brokers, EventTypes, EventPolicies, RequestReplies and EventTransforms.

use kinglet_events::duration::IsoDuration;
use serde_json::Value;

use super::destination::References;
use super::{Judge, delivery, filters};
use crate::admission::look;
use crate::field::Findings;
use crate::keys;

impl Judge<'_> {
    pub(super) fn broker(&self) -> Findings {
        let mut found = Findings::none();
        if self
            .annotation(keys::BROKER_CLASS)
            .unwrap_or_default()
            .is_empty()
        {
            found.add(Findings::missing(keys::BROKER_CLASS));
        }
        let defaults = &self.configs.broker_defaults;
        let namespace = self.review.namespace;
        let references = References {
            only_namespace: defaults.keeps_to_namespace(namespace).then_some(namespace),
            ..self.references()
        };
        let mut spec = Findings::none();
        let config = look::at(self.spec, "config");
        if !config.is_null() {
            spec.add(references.reference(config).under("config"));
        }
        spec.add(delivery::validate(
            self.spec,
            &self.configs.features,
            references,
        ));
        found.add(spec.under("spec"));
        found.add(self.immutable_but(&["delivery"], "{v1.BrokerSpec}"));
        found.add(self.immutable_annotation(keys::BROKER_CLASS));
        found
    }

    pub(super) fn event_type(&self) -> Findings {
        if look::text(self.spec, "type").is_empty() {
            return Findings::missing("type").under("spec");
        }
        Findings::none()
    }

    pub(super) fn event_policy(&self) -> Findings {
        let unchanged = self.old_spec() == Some(self.spec);
        if !self.configs.features.is_oidc() {
            return if unchanged {
                Findings::none()
            } else {
                Findings::general("oidc-authentication feature not enabled")
            };
        }
        let from = look::list(self.spec, "from").iter().enumerate();
        let mut found: Findings = from
            .map(|(index, from)| sender(from).under_at("from", index))
            .collect();
        let to = look::list(self.spec, "to").iter().enumerate();
        found.add(
            to.map(|(index, to)| guarded(to).under_at("to", index))
                .collect(),
        );
        found.add(filters::validate(self.spec));
        found.under("spec")
    }

    pub(super) fn request_reply(&self) -> Findings {
        let references = self.references();
        let broker = look::at(self.spec, "brokerRef");
        let mut found = references.reference(broker).under("brokerRef");
        let kind = look::text(broker, "kind");
        if !kind.is_empty() && !kind.eq_ignore_ascii_case("Broker") {
            found.add(Findings::invalid(kind, "brokerRef.kind").details("expected Broker"));
        }
        if !look::text(broker, "namespace").is_empty() {
            found.add(Findings::disallowed("brokerRef.namespace"));
        }
        for field in ["correlationAttribute", "replyAttribute"] {
            let name = look::text(self.spec, field);
            if matches!(name, "" | "id" | "source" | "specversion" | "type") {
                found.add(Findings::invalid(name, field));
            }
        }
        if let Some(timeout) = look::at(self.spec, "timeout").as_str() {
            let good = IsoDuration::parse(timeout)
                .is_ok_and(|time| !time.is_zero() && !time.is_negative());
            if !good {
                found.add(Findings::invalid(timeout, "timeout"));
            }
        }
        found.add(delivery::validate(
            self.spec,
            &self.configs.features,
            references,
        ));
        found.under("spec")
    }

    pub(super) fn event_transform(&self) -> Findings {
        let references = self.references();
        let mut found = Findings::none();
        if !look::has(self.spec, "jsonata") {
            found.add(Findings::missing_one_of(&["jsonata"]));
        }
        found.add(references.optional(self.spec, "sink"));
        let sink = look::at(self.spec, "sink");
        if look::has(self.spec, "jsonata") && !look::text(sink, "CACerts").is_empty() {
            found.add(Findings::error(
                "CACerts for the sink is not supported for JSONata transformations",
                "sink.CACerts",
            ));
        }
        if look::has(self.spec, "reply") {
            found.add(reply(look::at(self.spec, "reply"), sink).under("reply"));
        }
        found.under("spec")
    }
}

fn sender(from: &Value) -> Findings {
    let reference = look::at(from, "ref");
    let sub = look::at(from, "sub");
    let mut found = Findings::none();
    match (reference.is_null(), sub.as_str()) {
        (true, None | Some("")) => found.add(Findings::missing_one_of(&["ref", "sub"])),
        (false, Some(_)) => found.add(Findings::several_of(&["ref", "sub"])),
        _ => {}
    }
    if !reference.is_null() {
        found.add(named(reference).under("ref"));
    }
    let sub = sub.as_str().unwrap_or_default();
    if sub.find('*').is_some_and(|at| at + 1 < sub.len()) {
        found.add(Findings::invalid(sub, "sub").details("'*' is only allowed as suffix"));
    }
    found
}

fn guarded(to: &Value) -> Findings {
    let (reference, selector) = (look::at(to, "ref"), look::at(to, "selector"));
    let mut found = match (reference.is_null(), selector.is_null()) {
        (true, true) => Findings::missing_one_of(&["ref", "selector"]),
        (false, false) => Findings::several_of(&["ref", "selector"]),
        _ => Findings::none(),
    };
    if !reference.is_null() {
        found.add(named(reference).under("ref"));
    }
    if let Some(problem) = crate::label_selector::problem(selector) {
        found.add(Findings::error(problem, "selector"));
    }
    found
}

fn named(reference: &Value) -> Findings {
    ["kind", "name", "apiVersion"]
        .into_iter()
        .filter(|field| look::text(reference, field).is_empty())
        .map(Findings::missing)
        .collect()
}

fn reply(reply: &Value, sink: &Value) -> Findings {
    if sink.is_null() {
        return Findings::error("reply is set without spec.sink", "");
    }
    let discards = look::at(reply, "discard") == &Value::Bool(true);
    match (discards, look::has(reply, "jsonata")) {
        (true, true) => Findings::several_of(&["discard", "jsonata"]),
        (false, false) => Findings::missing_one_of(&["discard", "jsonata"]),
        _ => Findings::none(),
    }
}
