//! A container's environment: sources, references, `$(NAME)`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret};

use crate::spec::downward::{self, DownwardValues};

/// Reads the objects that environments and volumes name.
pub(crate) trait Sources: Sync {
    /// A ConfigMap of the pod's namespace.
    fn config_map(&self, name: &str) -> Option<std::sync::Arc<ConfigMap>>;
    /// A Secret of the pod's namespace.
    fn secret(&self, name: &str) -> Option<std::sync::Arc<Secret>>;
}

/// The container's own variables in order, later ones winning; those of image and node are not in it.
pub(crate) fn of(
    pod: &Pod,
    container: &Container,
    downward: &DownwardValues,
    known: &BTreeMap<String, String>,
    sources: &dyn Sources,
) -> Result<Vec<(String, String)>, String> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut resolved = known.clone();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        let mut found: Vec<(String, String)> = Vec::new();
        if let Some(reference) = &from.config_map_ref {
            match sources.config_map(&reference.name) {
                Some(map) => found.extend(
                    map.data
                        .iter()
                        .flatten()
                        .map(|(key, value)| (key.clone(), value.clone())),
                ),
                None if reference.optional == Some(true) => {}
                None => return Err(format!("configmap {:?} not found", reference.name)),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match sources.secret(&reference.name) {
                Some(secret) => found.extend(secret.data.iter().flatten().map(|(key, value)| {
                    (key.clone(), String::from_utf8_lossy(&value.0).into_owned())
                })),
                None if reference.optional == Some(true) => {}
                None => return Err(format!("secret {:?} not found", reference.name)),
            }
        }
        for (key, value) in found {
            let name = format!("{prefix}{key}");
            // A key that cannot be a variable is left out, as a kubelet does.
            if !name.is_empty() && !name.contains('=') {
                resolved.insert(name.clone(), value.clone());
                all.push((name, value));
            }
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, container, downward, variable, &resolved, sources)? {
            resolved.insert(variable.name.clone(), value.clone());
            all.push((variable.name.clone(), value));
        }
    }
    Ok(all)
}

fn value_of(
    pod: &Pod,
    container: &Container,
    downward: &DownwardValues,
    variable: &EnvVar,
    resolved: &BTreeMap<String, String>,
    sources: &dyn Sources,
) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else {
        return Ok(Some(expand(
            variable.value.as_deref().unwrap_or(""),
            resolved,
        )));
    };
    if let Some(selector) = &from.field_ref {
        return downward::field(pod, downward, selector).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        return downward::resource(pod, downward, Some(container), selector).map(Some);
    }
    if let Some(selector) = &from.config_map_key_ref {
        let optional = selector.optional == Some(true);
        let Some(map) = sources.config_map(&selector.name) else {
            return if optional {
                Ok(None)
            } else {
                Err(format!("configmap {:?} not found", selector.name))
            };
        };
        return match map.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(format!(
                "couldn't find key {} in ConfigMap {}",
                selector.key,
                full_name(pod, &selector.name)
            )),
        };
    }
    if let Some(selector) = &from.secret_key_ref {
        let optional = selector.optional == Some(true);
        let Some(secret) = sources.secret(&selector.name) else {
            return if optional {
                Ok(None)
            } else {
                Err(format!("secret {:?} not found", selector.name))
            };
        };
        return match secret
            .data
            .as_ref()
            .and_then(|data| data.get(&selector.key))
        {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(format!(
                "couldn't find key {} in Secret {}",
                selector.key,
                full_name(pod, &selector.name)
            )),
        };
    }
    Err(format!(
        "environment variable {} has a valueFrom without a source that this node knows",
        variable.name
    ))
}

fn full_name(pod: &Pod, name: &str) -> String {
    format!("{}/{name}", pod.metadata.namespace.as_deref().unwrap_or(""))
}

/// Replaces `$(NAME)`; `$$` is a dollar sign, and an unknown name stays as it is written.
pub(crate) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            result.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after
            .strip_prefix('(')
            .and_then(|inside| inside.split_once(')'))
        {
            match known.get(name) {
                Some(value) => result.push_str(value),
                None => result.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = tail;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::spec::downward::tests::downward;
    use proptest::prelude::*;
    use serde_json::json;

    pub(crate) struct Fixed;

    impl Sources for Fixed {
        fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
            let map =
                json!({"metadata": {"name": "settings"}, "data": {"colour": "red", "size": "9"}});
            (name == "settings").then(|| Arc::new(serde_json::from_value(map).expect("map")))
        }

        fn secret(&self, name: &str) -> Option<Arc<Secret>> {
            let secret = json!({"metadata": {"name": "keys"}, "data": {"password": "aHVudGVy"}});
            (name == "keys").then(|| Arc::new(serde_json::from_value(secret).expect("secret")))
        }
    }

    fn environment(container: serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}}))
                .expect("pod");
        let container: Container = serde_json::from_value(container).expect("container");
        of(
            &pod,
            &container,
            &downward(),
            &BTreeMap::from([("NODE".to_owned(), "n".to_owned())]),
            &Fixed,
        )
    }

    #[test]
    fn dollars() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("", ""),
        ] {
            assert_eq!(expand(text, &known), expected, "{text}");
        }
    }

    #[test]
    fn sources_and_references() {
        let all = environment(json!({"name": "c",
        "envFrom": [{"prefix": "S_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "BOTH", "value": "$(S_colour) on $(NODE)"},
            {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "none", "optional": true}}},
        ]}));
        let expected = [
            ("S_colour", "red"),
            ("S_size", "9"),
            ("PASSWORD", "hunter"),
            ("IP", "10.1.0.7"),
            ("BOTH", "red on n"),
        ];
        assert_eq!(
            all,
            Ok(expected
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec())
        );
    }

    #[test]
    fn what_is_missing_is_named_as_a_kubelet_names_it() {
        let of = |source: serde_json::Value| {
            environment(json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]}))
        };
        assert_eq!(
            of(json!({"configMapKeyRef": {"name": "none", "key": "k"}})),
            Err("configmap \"none\" not found".to_owned())
        );
        assert_eq!(
            of(json!({"secretKeyRef": {"name": "keys", "key": "k"}})),
            Err("couldn't find key k in Secret ns/keys".to_owned())
        );
        assert!(
            environment(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "none"}}]}))
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn text_without_dollars_stays(text in "[^$]*") {
            prop_assert_eq!(expand(&text, &BTreeMap::new()), text);
        }

        #[test]
        fn expansion_never_panics(text in ".*") {
            expand(&text, &BTreeMap::from([("A".to_owned(), "$(A)".to_owned())]));
        }
    }
}
