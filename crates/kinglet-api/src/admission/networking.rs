//! Rules about the kinds that controllers write for each other (spec/serving.md 2.7).

use serde_json::Value;

use crate::config::Defaults;
use crate::field::Findings;
use crate::formats;

use super::{look, revision};

/// A PodAutoscaler's spec.
pub(super) fn pod_autoscaler(spec: &Value, defaults: &Defaults) -> Findings {
    let silent = look::fields(spec).all(|field| match field {
        "scaleTargetRef" => look::is_empty(look::at(spec, "scaleTargetRef")),
        "protocolType" => look::text(spec, "protocolType").is_empty(),
        _ => false,
    });
    if silent {
        return Findings::missing("spec");
    }
    let mut found = reference(look::at(spec, "scaleTargetRef")).under("scaleTargetRef");
    found.add(revision::concurrency(
        look::number(spec, "containerConcurrency"),
        defaults,
    ));
    found.add(protocol(spec));
    found.under("spec")
}

/// A Metric's spec.
pub(super) fn metric(spec: &Value) -> Findings {
    let silent = look::number(spec, "stableWindow").unwrap_or_default() == 0
        && look::number(spec, "panicWindow").unwrap_or_default() == 0
        && look::text(spec, "scrapeTarget").is_empty();
    if silent {
        Findings::missing("spec")
    } else {
        Findings::none()
    }
}

/// A Certificate's spec (spec/serving.md 2.7).
pub(super) fn certificate(spec: &Value) -> Findings {
    let mut found = Findings::none();
    let names: Vec<&str> = look::list(spec, "dnsNames")
        .iter()
        .map(|name| name.as_str().unwrap_or_default())
        .collect();
    if names.is_empty() {
        found.add(Findings::missing("dnsNames"));
    }
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() {
            found.add(Findings::invalid("", &format!("dnsNames[{i}]")));
        }
    }
    if look::text(spec, "secretName").is_empty() {
        found.add(Findings::missing("secretName"));
    }
    let domain = look::text(spec, "domain");
    let inside = |name: &&str| *name == domain || name.ends_with(&format!(".{domain}"));
    if !domain.is_empty() && !names.is_empty() && !names.iter().any(inside) {
        found.add(Findings::invalid(domain, "domain"));
    }
    found.under("spec")
}

/// A ServerlessService.
pub(super) fn serverless_service(object: &Value) -> Findings {
    let spec = look::at(object, "spec");
    let mut found = reference(look::at(spec, "objectRef")).under("objectRef");
    found.add(match look::text(spec, "mode") {
        "Proxy" | "Serve" => Findings::none(),
        "" => Findings::missing("mode"),
        other => Findings::invalid(other, "mode"),
    });
    if let Some(activators) = look::number(spec, "numActivators").filter(|number| *number < 0) {
        found.add(Findings::invalid(activators, "numActivators"));
    }
    found.add(protocol(spec));
    let mut found = found.under("spec");
    let annotations = look::map(look::at(object, "metadata"), "annotations");
    found.add(
        revision::networking(&annotations)
            .under("annotations")
            .under("metadata"),
    );
    found
}

fn protocol(spec: &Value) -> Findings {
    match look::text(spec, "protocolType") {
        "http1" | "h2c" => Findings::none(),
        "" => Findings::missing("protocolType"),
        other => Findings::invalid(other, "protocolType"),
    }
}

/// A reference with API version, kind and name, and nothing else.
fn reference(reference: &Value) -> Findings {
    let mut found: Findings = look::fields(reference)
        .filter(|field| !["apiVersion", "kind", "name"].contains(field))
        .map(Findings::disallowed)
        .collect();
    for field in ["apiVersion", "kind", "name"] {
        let text = look::text(reference, field);
        if text.is_empty() {
            found.add(Findings::missing(field));
            continue;
        }
        let wrong = match field {
            "kind" if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => Vec::new(),
            "kind" => vec!["a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')".to_owned()],
            _ => formats::qualified_name(text),
        };
        if !wrong.is_empty() {
            found.add(Findings::invalid(text, field).details(wrong.join(", ")));
        }
    }
    found
}

/// An Ingress's spec.
pub(super) fn ingress(spec: &Value, namespace: &str) -> Findings {
    if look::is_empty(spec) {
        return Findings::missing("spec");
    }
    let mut found = Findings::none();
    let rules = look::list(spec, "rules");
    if rules.is_empty() {
        found.add(Findings::missing("rules"));
    }
    for (i, rule) in rules.iter().enumerate() {
        found.add(ingress_rule(rule, namespace).under_at("rules", i));
    }
    for (i, tls) in look::list(spec, "tls").iter().enumerate() {
        let missing = ["secretName", "secretNamespace"]
            .into_iter()
            .filter(|field| look::text(tls, field).is_empty());
        found.add(
            missing
                .map(Findings::missing)
                .collect::<Findings>()
                .under_at("tls", i),
        );
    }
    match look::text(spec, "httpOption") {
        "" | "Enabled" | "Redirected" => {}
        other => found.add(Findings::invalid(other, "httpOption")),
    }
    found.under("spec")
}

fn ingress_rule(rule: &Value, namespace: &str) -> Findings {
    if !look::has(rule, "http") {
        return Findings::missing("http");
    }
    let paths = look::list(look::at(rule, "http"), "paths");
    if paths.is_empty() {
        return Findings::missing("paths").under("http");
    }
    let rows = paths
        .iter()
        .enumerate()
        .map(|(i, path)| ingress_path(path, namespace).under_at("paths", i));
    rows.collect::<Findings>().under("http")
}

fn ingress_path(path: &Value, namespace: &str) -> Findings {
    let splits = look::list(path, "splits");
    if splits.is_empty() {
        return Findings::missing("splits");
    }
    let mut found = Findings::none();
    let mut total = 0_i64;
    for (i, split) in splits.iter().enumerate() {
        let mut inner = Findings::none();
        let percent = look::number(split, "percent").unwrap_or_default();
        if !(0..=100).contains(&percent) {
            inner.add(Findings::invalid(percent, "percent"));
        }
        total = total.saturating_add(percent);
        if look::text(split, "serviceName").is_empty() {
            inner.add(Findings::missing("serviceName"));
        }
        match look::text(split, "serviceNamespace") {
            "" => inner.add(Findings::missing("serviceNamespace")),
            other if other != namespace => {
                inner.add(Findings::error(
                    "service namespace must match ingress namespace",
                    "serviceNamespace",
                ));
            }
            _ => {}
        }
        let port = look::at(split, "servicePort");
        if port.is_null() || port.as_i64() == Some(0) || port.as_str() == Some("") {
            inner.add(Findings::missing("servicePort"));
        }
        found.add(inner.under_at("splits", i));
    }
    let alone = splits.len() == 1 && total == 0;
    if total != 100 && !alone {
        found.add(Findings::error(
            format!("traffic split percentage must total to 100, but was {total}"),
            "splits",
        ));
    }
    found
}
