//! Rules about traffic blocks (spec/serving.md 2.5).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::field::Findings;
use crate::formats;
use crate::go;

use super::look;

/// Where a traffic block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrafficParent {
    Service,
    Route,
}

/// The list `traffic`; paths begin with it.
pub(super) fn validate(traffic: &[Value], parent: TrafficParent) -> Findings {
    let mut found = Findings::none();
    let mut tags: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sum = 0_i64;
    for (i, target) in traffic.iter().enumerate() {
        found.add(target_rules(target, parent).under_at("traffic", i));
        sum = sum.saturating_add(look::number(target, "percent").unwrap_or_default());
        let tag = look::text(target, "tag");
        if tag.is_empty() {
            continue;
        }
        let wrong = formats::dns_1035_label(tag);
        if !wrong.is_empty() {
            // Upstream puts the index behind the field here.
            let message = format!("not a DNS 1035 label: [{}]", wrong.join(" "));
            found.add(Findings::invalid(message, &format!("traffic.tag[{i}]")));
        }
        if let Some(first) = tags.insert(tag, i) {
            let message = format!("Multiple definitions for {}", go::quote(tag));
            for i in [first, i] {
                found.add(Findings::error(
                    message.clone(),
                    &format!("traffic[{i}].tag"),
                ));
            }
        }
    }
    if sum != 100 {
        found.add(Findings::error(
            format!("Traffic targets sum to {sum}, want 100"),
            "traffic",
        ));
    }
    found
}

fn target_rules(target: &Value, parent: TrafficParent) -> Findings {
    let mut found = Findings::none();
    let revision = look::text(target, "revisionName");
    let configuration = look::text(target, "configurationName");
    match parent {
        TrafficParent::Service if !configuration.is_empty() => {
            found.add(Findings::disallowed("configurationName"))
        }
        TrafficParent::Service => {}
        TrafficParent::Route => match (revision.is_empty(), configuration.is_empty()) {
            (true, true) => found.add(Findings::missing_one_of(&[
                "revisionName",
                "configurationName",
            ])),
            (false, false) => {
                found.add(Findings::several_of(&["revisionName", "configurationName"]))
            }
            _ => {}
        },
    }
    for (field, name) in [
        ("revisionName", revision),
        ("configurationName", configuration),
    ] {
        let wrong = formats::qualified_name(name);
        if !name.is_empty()
            && !wrong.is_empty()
            && (field == "revisionName" || parent == TrafficParent::Route)
        {
            found.add(Findings::invalid_key(name, field).details(wrong.join(", ")));
        }
    }
    if let Some(latest) = look::at(target, "latestRevision").as_bool()
        && latest != revision.is_empty()
    {
        let message = format!(
            "may not set revisionName {} when latestRevision is {latest}",
            go::quote(revision)
        );
        found.add(Findings::error(message, "latestRevision"));
    }
    if let Some(percent) =
        look::number(target, "percent").filter(|percent| !(0..=100).contains(percent))
    {
        found.add(Findings::out_of_bounds(percent, 0, 100, "percent"));
    }
    if look::has(target, "url") {
        found.add(Findings::disallowed("url"));
    }
    found
}
