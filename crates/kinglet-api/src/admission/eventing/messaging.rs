//! Rules of Channels, Subscriptions, InMemoryChannels and DurableChannels.

use kinglet_events::duration::IsoDuration;
use kinglet_quantity::Quantity;
use serde_json::Value;

use super::trigger::NO_NAMESPACE;
use super::{CONTROLLER, Judge, delivery};
use crate::admission::look;
use crate::field::Findings;
use crate::keys;

impl Judge<'_> {
    pub(super) fn channel(&self) -> Findings {
        let mut found = template(self.spec);
        if !look::list(self.spec, "subscribers").is_empty() {
            found.add(Findings::disallowed("subscribable.subscribers"));
        }
        let references = super::destination::References {
            only_namespace: Some(self.review.namespace),
            ..self.references()
        };
        found.add(delivery::validate(
            self.spec,
            &self.configs.features,
            references,
        ));
        let mut found = found.under("spec");
        found.add(self.immutable_but(&["subscribers"], "{v1.ChannelSpec}"));
        found
    }

    pub(super) fn subscription(&self) -> Findings {
        let references = self.references();
        let channel = look::at(self.spec, "channel");
        let mut found = Findings::none();
        let is_empty = ["name", "apiVersion", "kind", "group"]
            .iter()
            .all(|field| look::text(channel, field).is_empty());
        if is_empty {
            found.add(
                Findings::missing("channel").details("the Subscription must reference a channel"),
            );
        } else {
            found.add(self.channel_reference(channel).under("channel"));
        }
        let subscriber = look::at(self.spec, "subscriber");
        if is_empty_destination(subscriber) {
            found.add(
                Findings::missing("subscriber")
                    .details("the Subscription must reference a subscriber"),
            );
        } else {
            found.add(references.destination(subscriber).under("subscriber"));
        }
        let reply = look::at(self.spec, "reply");
        if !is_empty_destination(reply) {
            found.add(references.destination(reply).under("reply"));
        }
        let features = &self.configs.features;
        found.add(delivery::validate(self.spec, features, references));
        let mut found = found.under("spec");
        found.add(self.link(channel));
        found.add(self.immutable_but(
            &["subscriber", "reply", "delivery"],
            "{v1.SubscriptionSpec}",
        ));
        found
    }

    fn channel_reference(&self, channel: &Value) -> Findings {
        let mut found = self.references().reference(channel);
        if !look::text(channel, "namespace").is_empty() && !self.configs.features.links_namespaces()
        {
            found.add(Findings::disallowed("namespace").details(NO_NAMESPACE));
        }
        found
    }

    pub(super) fn in_memory_channel(&self) -> Findings {
        let mut found = self.subscribers();
        for (key, known, details) in [
            (
                keys::SCOPE,
                &["cluster", "namespace"],
                "expected either 'cluster' or 'namespace'",
            ),
            (
                keys::ASYNC_HANDLER,
                &["true", "false"],
                "expected either 'true' or 'false'",
            ),
        ] {
            if let Some(value) = self.annotation(key).filter(|value| !known.contains(value)) {
                found.add(
                    Findings::invalid(value, "")
                        .details(details)
                        .key(key)
                        .under("annotations")
                        .under("metadata"),
                );
            }
        }
        found
    }

    pub(super) fn durable_channel(&self) -> Findings {
        let mut found = self.subscribers();
        let retention = look::at(self.spec, "retention");
        let mut inner = Findings::none();
        if let Some(age) = look::at(retention, "age").as_str() {
            let good =
                IsoDuration::parse(age).is_ok_and(|time| !time.is_zero() && !time.is_negative());
            if !good {
                inner.add(
                    Findings::invalid(age, "age").details("expected an ISO 8601 duration above 0"),
                );
            }
        }
        if let Some(size) = look::at(retention, "size").as_str() {
            let good = Quantity::parse(size).is_ok_and(|size| size > Quantity::from_units(0));
            if !good {
                inner.add(Findings::invalid(size, "size").details("expected a quantity above 0"));
            }
        }
        if let Some(word) = look::at(retention, "whenFull").as_str()
            && !["Refuse", "Delay"].contains(&word)
        {
            inner.add(Findings::invalid(word, "whenFull"));
        }
        found.add(inner.under("retention").under("spec"));
        found
    }

    /// Subscribers and delivery of a channel that events flow through.
    fn subscribers(&self) -> Findings {
        let subscribers = look::list(self.spec, "subscribers");
        let of_each = subscribers.iter().enumerate();
        let mut found: Findings = of_each
            .filter(|(_, subscriber)| {
                look::text(subscriber, "replyUri").is_empty()
                    && look::text(subscriber, "subscriberUri").is_empty()
            })
            .flat_map(|(index, _)| {
                ["replyURI", "subscriberURI"].map(|field| {
                    Findings::missing(field)
                        .details("expected at least one of, got none")
                        .under_at("subscriber", index)
                        .under("subscribable")
                })
            })
            .collect();
        // What our own controllers write comes from a Channel or Broker that was judged.
        if !self.is_controller() {
            found.add(delivery::validate(
                self.spec,
                &self.configs.features,
                self.references(),
            ));
        }
        let mut found = found.under("spec");
        let changed = self
            .old_spec()
            .is_some_and(|old| look::list(old, "subscribers") != subscribers);
        if changed && !self.is_controller() {
            found.add(Findings::error(
                format!(
                    "Channel.Spec.Subscribers changed by user {} which was not the {CONTROLLER} service account",
                    self.review.user
                ),
                "spec.subscribers",
            ));
        }
        found
    }

    fn is_controller(&self) -> bool {
        self.review.user_is_controller || self.review.user == CONTROLLER
    }
}

/// Judges `channelTemplate`.
pub(super) fn template(spec: &Value) -> Findings {
    let template = look::at(spec, "channelTemplate");
    if template.is_null() {
        return Findings::missing("channelTemplate");
    }
    ["apiVersion", "kind"]
        .into_iter()
        .filter(|field| look::text(template, field).is_empty())
        .map(|field| Findings::missing(field).under("channelTemplate"))
        .collect()
}

fn is_empty_destination(destination: &Value) -> bool {
    !look::has(destination, "ref") && look::text(destination, "uri").is_empty()
}
