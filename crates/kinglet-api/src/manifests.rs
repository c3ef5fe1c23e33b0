//! The YAML of `config/`, inside the binary: one source for the standalone server and for clusters.

use serde_json::Value;

macro_rules! files {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../config/", $folder, "/", $name, ".yaml")))),*]
    };
}

const CRDS: &[(&str, &str)] = files!("crds":
    "services", "routes", "configurations", "revisions",
    "podautoscalers", "metrics",
    "ingresses", "serverlessservices", "certificates",
    "images",
);

/// A CRD is installed together with what reconciles its kind: whoever adds a reconciler adds the plural here.
const EVENTING_INSTALLED: &[&str] = &[];

const EVENTING_CRDS: &[(&str, &str)] = files!("crds/eventing":
    "brokers", "triggers", "eventtypes", "eventpolicies", "requestreplies", "eventtransforms",
    "channels", "subscriptions", "inmemorychannels", "durablechannels",
    "sequences", "parallels",
    "pingsources", "apiserversources", "containersources", "sinkbindings", "integrationsources",
    "jobsinks", "integrationsinks",
);

const EVENTING_CONFIGMAPS: &[(&str, &str)] = files!("configmaps/eventing":
    "config-br-default-channel", "config-br-defaults", "config-features", "config-imc-event-dispatcher",
    "config-kreference-mapping", "config-leader-election", "config-logging", "config-observability",
    "config-ping-defaults", "config-sugar", "default-ch-webhook",
);

/// What differs where everything is one process.
const EVENTING_STANDALONE: &[(&str, &str)] =
    files!("configmaps/eventing/standalone": "config-br-default-channel");

const CONFIGMAPS: &[(&str, &str)] = files!("configmaps":
    "config-autoscaler", "config-defaults", "config-deployment", "config-domain", "config-features",
    "config-gc", "config-leader-election", "config-logging", "config-network", "config-observability",
);

const ROLES: &[(&str, &str)] = files!("roles": "kubernetes", "knative-serving");

/// CustomResourceDefinitions: plural and YAML.
pub fn crds() -> &'static [(&'static str, &'static str)] {
    CRDS
}

/// The ConfigMaps of `knative-serving`: name and YAML.
pub fn configmaps() -> &'static [(&'static str, &'static str)] {
    CONFIGMAPS
}

/// The CRDs that are installed at the start, as JSON: [`crds`] and those of Eventing that have a reconciler.
pub fn parsed_crds() -> Vec<Value> {
    let eventing = EVENTING_CRDS
        .iter()
        .filter(|(plural, _)| EVENTING_INSTALLED.contains(plural));
    CRDS.iter()
        .chain(eventing)
        .map(|(name, text)| parsed(name, text))
        .collect()
}

/// Every CRD of Eventing, as JSON, installed or not.
pub fn parsed_eventing_crds() -> Vec<Value> {
    EVENTING_CRDS
        .iter()
        .map(|(name, text)| parsed(name, text))
        .collect()
}

/// Whether any kind of Eventing is installed at the start.
pub fn has_eventing() -> bool {
    !EVENTING_INSTALLED.is_empty()
}

/// The ConfigMaps of `knative-eventing`, as JSON: of one process, or of a cluster.
pub fn parsed_eventing_configmaps(standalone: bool) -> Vec<Value> {
    let own = |name: &str| {
        EVENTING_STANDALONE
            .iter()
            .find(|(known, _)| standalone && *known == name)
            .map(|(_, text)| *text)
    };
    EVENTING_CONFIGMAPS
        .iter()
        .map(|(name, text)| parsed(name, own(name).unwrap_or(text)))
        .collect()
}

/// [`configmaps`] as JSON.
pub fn parsed_configmaps() -> Vec<Value> {
    CONFIGMAPS
        .iter()
        .map(|(name, text)| parsed(name, text))
        .collect()
}

/// Roles, bindings and the service accounts they are for, as JSON: Kubernetes' own for users, and Knative's.
pub fn parsed_roles() -> Vec<Value> {
    ROLES
        .iter()
        .flat_map(|(name, text)| {
            crate::yaml::documents(text)
                .unwrap_or_else(|error| panic!("the shipped {name}.yaml is valid YAML: {error}"))
        })
        .collect()
}

/// One ConfigMap as JSON.
pub fn configmap(name: &str) -> Option<Value> {
    CONFIGMAPS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(name, text)| parsed(name, text))
}

fn parsed(name: &str, text: &str) -> Value {
    crate::yaml::document(text)
        .unwrap_or_else(|error| panic!("the shipped {name}.yaml is valid YAML: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn shipped_config_maps_parse_and_so_do_their_examples() {
        assert_eq!(
            CONFIGMAPS.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            config::NAMES
        );
        for map in parsed_configmaps() {
            let name = map["metadata"]["name"].as_str().unwrap();
            let data = |value: &Value| -> config::Data {
                let pairs = value.as_object().into_iter().flatten();
                pairs
                    .map(|(key, value)| {
                        (key.clone(), value.as_str().unwrap_or_default().to_owned())
                    })
                    .collect()
            };
            assert_eq!(config::check(name, &data(&map["data"])), Ok(()), "{name}");
            let example = map["data"]["_example"].as_str().unwrap();
            let checksum = map["metadata"]["annotations"]["knative.dev/example-checksum"]
                .as_str()
                .unwrap();
            assert_eq!(config::example_checksum(example), checksum, "{name}");
            let shown = crate::yaml::document(example).unwrap();
            assert_eq!(
                config::check(name, &data(&shown)),
                Ok(()),
                "example of {name}"
            );
        }
    }

    #[test]
    fn shipped_defaults_are_the_parsers_defaults() {
        let raw: std::collections::BTreeMap<String, config::Data> = parsed_configmaps()
            .into_iter()
            .map(|map| {
                let pairs = map["data"].as_object().unwrap().iter();
                let data = pairs
                    .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
                    .collect();
                (map["metadata"]["name"].as_str().unwrap().to_owned(), data)
            })
            .collect();
        let (configs, problems) = config::Configs::from_maps(|name| raw.get(name));
        let mut want = config::Configs::default();
        // The one setting in which we differ from Knative's own default.
        want.network.ingress_class = crate::keys::INGRESS_CLASS_KINGLET.to_owned();
        assert_eq!((configs, problems), (want, Vec::new()));
    }

    #[test]
    fn shipped_config_maps_of_eventing_parse_and_so_do_their_examples() {
        use config::eventing::{self, EventingConfigs};
        let data = |value: &Value| -> config::Data {
            let pairs = value.as_object().into_iter().flatten();
            pairs
                .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
                .collect()
        };
        for standalone in [false, true] {
            let maps = parsed_eventing_configmaps(standalone);
            for map in &maps {
                let name = map["metadata"]["name"].as_str().unwrap();
                let real = data(&map["data"]);
                if name == eventing::BROKER_CHANNEL {
                    let kind = eventing::broker_channel_template(&real).unwrap().kind;
                    let want = if standalone {
                        "DurableChannel"
                    } else {
                        "InMemoryChannel"
                    };
                    assert_eq!(kind, want);
                    continue;
                }
                assert!(eventing::NAMES.contains(&name), "{name}");
                let (configs, problems) =
                    EventingConfigs::from_maps(|asked| (asked == name).then_some(&real));
                assert_eq!(
                    (configs, problems),
                    (EventingConfigs::default(), vec![]),
                    "{name}"
                );
                let example = map["data"]["_example"].as_str().unwrap();
                assert_eq!(
                    config::example_checksum(example),
                    map["metadata"]["annotations"]["knative.dev/example-checksum"],
                    "{name}"
                );
                let shown = data(&crate::yaml::document(example).unwrap());
                let (_, problems) =
                    EventingConfigs::from_maps(|asked| (asked == name).then_some(&shown));
                assert_eq!(problems, [], "example of {name}");
                assert_eq!(eventing::check(name, &shown), Ok(()), "example of {name}");
            }
            assert_eq!(maps.len(), eventing::NAMES.len() + 1);
        }
    }

    #[test]
    fn crds_are_complete() {
        for crd in parsed_crds().into_iter().chain(parsed_eventing_crds()) {
            let names = &crd["spec"]["names"];
            let group = crd["spec"]["group"].as_str().unwrap();
            let id = format!("{}.{group}", names["plural"].as_str().unwrap());
            assert_eq!(crd["metadata"]["name"], id.as_str());
            let versions = crd["spec"]["versions"].as_array().unwrap();
            let stored = versions.iter().filter(|version| version["storage"] == true);
            assert_eq!(stored.count(), 1, "{id}");
            for version in versions {
                assert!(version["subresources"]["status"].is_object(), "{id}");
                let schema = &version["schema"]["openAPIV3Schema"];
                for part in ["spec", "status"] {
                    assert!(
                        schema["properties"][part]["description"].is_string(),
                        "{id}.{part}"
                    );
                }
            }
        }
        let ksvc = &parsed_crds()[0]["spec"];
        assert_eq!(
            ksvc["names"]["shortNames"],
            serde_json::json!(["kservice", "ksvc"])
        );
    }

    /// What a schema of Eventing has, the decoder has, field by field down to where the schema ends; and the other way round.
    #[test]
    fn schemas_and_decoders_of_eventing_agree() {
        for crd in parsed_eventing_crds() {
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
            for version in crd["spec"]["versions"].as_array().unwrap() {
                let shape = match (kind, version["name"].as_str().unwrap()) {
                    ("EventType", "v1beta3") => "EventTypeSpecV1Beta3".to_owned(),
                    _ => format!("{kind}Spec"),
                };
                let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
                let differences = crate::shape::differences(&shape, spec);
                assert_eq!(differences, Vec::<String>::new(), "{kind}");
            }
        }
    }

    /// Fields that the schema lets through must be known to the decoder, or they would vanish unseen.
    #[test]
    fn what_the_schema_knows_the_decoder_knows() {
        let crds = parsed_crds();
        let revision = crds
            .iter()
            .find(|crd| crd["spec"]["names"]["kind"] == "Revision")
            .unwrap();
        let spec = &revision["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            ["properties"];
        let containers = &spec["containers"]["items"]["properties"];
        for (properties, shape) in [
            (spec, "RevisionSpec"),
            (containers, "Container"),
            (&containers["readinessProbe"]["properties"], "Probe"),
            (
                &containers["securityContext"]["properties"],
                "SecurityContext",
            ),
            (
                &containers["volumeMounts"]["items"]["properties"],
                "VolumeMount",
            ),
            (&spec["volumes"]["items"]["properties"], "Volume"),
        ] {
            let known = crate::shape::field_names(shape);
            for field in properties.as_object().unwrap().keys() {
                assert!(known.contains(&field.as_str()), "{shape}.{field}");
            }
        }
    }
}
