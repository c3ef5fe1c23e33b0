//! JSON schemas of Kubernetes' own kinds, from their published definitions, for `kubectl explain` and OpenAPI.
//!
//! Built when asked for: a document is read a few times in a process's life and would weigh megabytes.

use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

/// Name of a kind's schema (`io.k8s.api.core.v1.Pod`) and every definition it reaches, by name.
pub fn schema(group: &str, version: &str, kind: &str) -> Option<(String, Map<String, Value>)> {
    let schema = source(group, version, kind)?;
    Some(schema())
}

type Source = fn() -> (String, Map<String, Value>);

fn source(group: &str, version: &str, kind: &str) -> Option<Source> {
    use k8s_openapi::api::admissionregistration::v1 as admissionregistration;
    use k8s_openapi::api::apps::v1 as apps;
    use k8s_openapi::api::authentication::v1 as authentication;
    use k8s_openapi::api::authorization::v1 as authorization;
    use k8s_openapi::api::autoscaling::v1 as autoscaling;
    use k8s_openapi::api::autoscaling::v2 as autoscaling_v2;
    use k8s_openapi::api::batch::v1 as batch;
    use k8s_openapi::api::coordination::v1 as coordination;
    use k8s_openapi::api::core::v1 as core;
    use k8s_openapi::api::discovery::v1 as discovery;
    use k8s_openapi::api::events::v1 as events;
    use k8s_openapi::api::networking::v1 as networking;
    use k8s_openapi::api::node::v1 as node;
    use k8s_openapi::api::policy::v1 as policy;
    use k8s_openapi::api::rbac::v1 as rbac;
    use k8s_openapi::api::scheduling::v1 as scheduling;
    use k8s_openapi::api::storage::v1 as storage;
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;

    macro_rules! kinds {
        ($($group:literal $version:literal: $module:ident { $($kind:ident),* $(,)? })*) => {
            match (group, version, kind) {
                $($(($group, $version, stringify!($kind)) => Some(of::<$module::$kind> as Source),)*)*
                _ => None,
            }
        };
    }
    kinds! {
        "" "v1": core {
            Namespace, Pod, Service, Endpoints, ConfigMap, Secret, ServiceAccount, Event, Node, ResourceQuota, LimitRange,
            PersistentVolumeClaim, PersistentVolume, ReplicationController, PodTemplate,
        }
        "apps" "v1": apps { Deployment, ReplicaSet, StatefulSet, DaemonSet, ControllerRevision }
        "batch" "v1": batch { Job, CronJob }
        "discovery.k8s.io" "v1": discovery { EndpointSlice }
        "events.k8s.io" "v1": events { Event }
        "coordination.k8s.io" "v1": coordination { Lease }
        "scheduling.k8s.io" "v1": scheduling { PriorityClass }
        "policy" "v1": policy { PodDisruptionBudget, Eviction }
        "autoscaling" "v1": autoscaling { HorizontalPodAutoscaler, Scale }
        "autoscaling" "v2": autoscaling_v2 { HorizontalPodAutoscaler }
        "networking.k8s.io" "v1": networking { Ingress, IngressClass, NetworkPolicy }
        "node.k8s.io" "v1": node { RuntimeClass }
        "storage.k8s.io" "v1": storage { StorageClass }
        "rbac.authorization.k8s.io" "v1": rbac { Role, RoleBinding, ClusterRole, ClusterRoleBinding }
        "authentication.k8s.io" "v1": authentication { TokenReview, TokenRequest, SelfSubjectReview }
        "authorization.k8s.io" "v1": authorization {
            SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview, LocalSubjectAccessReview,
        }
        "apiextensions.k8s.io" "v1": apiextensions { CustomResourceDefinition }
        "admissionregistration.k8s.io" "v1": admissionregistration {
            MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
        }
    }
}

fn of<T: JsonSchema>() -> (String, Map<String, Value>) {
    let mut generator = SchemaGenerator::default();
    generator.subschema_for::<T>();
    (
        T::schema_name().into_owned(),
        generator.take_definitions(true),
    )
}

#[cfg(test)]
mod tests {
    use super::schema;

    #[test]
    fn a_kind_brings_all_it_refers_to() {
        let (name, definitions) = schema("apps", "v1", "Deployment").unwrap();
        assert_eq!(name, "io.k8s.api.apps.v1.Deployment");
        assert!(definitions[&name]["properties"]["spec"].is_object());
        let container = &definitions["io.k8s.api.core.v1.Container"];
        assert!(container["properties"]["image"]["description"].is_string());
        let text = serde_json::to_string(&definitions).unwrap();
        for reference in text.split("\"$ref\":\"").skip(1) {
            let name = reference
                .split('"')
                .next()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap();
            assert!(definitions.contains_key(name), "{name}");
        }
        assert!(schema("apps", "v1", "Nothing").is_none());
    }
}
