//! `config-features`: what Revisions may use of Kubernetes.

use super::Data;

/// State of a feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flag {
    /// On.
    Enabled,
    /// For those who ask for it.
    Allowed,
    /// Off.
    #[default]
    Disabled,
}

impl Flag {
    /// Enabled or Allowed.
    pub fn is_on(self) -> bool {
        self != Self::Disabled
    }
}

/// How far containers are secured without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecurePodDefaults {
    /// Not at all.
    #[default]
    Disabled,
    /// As far as root still works.
    AllowRootBounded,
    /// Without root.
    Enabled,
}

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $key:literal, $default:ident;)*) => {
        /// `config-features`.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Features {
            $($(#[$doc])* pub $name: Flag,)*
            /// How far containers are secured without being asked.
            pub secure_pod_defaults: SecurePodDefaults,
        }

        impl Default for Features {
            fn default() -> Self {
                Self { $($name: Flag::$default,)* secure_pod_defaults: SecurePodDefaults::Disabled }
            }
        }

        impl Features {
            /// Reads the map. Values that are not known are passed over.
            pub fn parse(data: &Data) -> Result<Self, String> {
                let mut features = Self::default();
                $(if let Some(flag) = data.get($key).and_then(|value| flag(value)) {
                    features.$name = flag;
                })*
                match data.get("secure-pod-defaults").map(|value| value.trim().to_ascii_lowercase()).as_deref() {
                    Some("enabled") => features.secure_pod_defaults = SecurePodDefaults::Enabled,
                    Some("allowrootbounded") => features.secure_pod_defaults = SecurePodDefaults::AllowRootBounded,
                    _ => {}
                }
                Ok(features)
            }
        }
    };
}

fn flag(value: &str) -> Option<Flag> {
    match value.trim().to_ascii_lowercase().as_str() {
        "enabled" => Some(Flag::Enabled),
        "allowed" => Some(Flag::Allowed),
        "disabled" => Some(Flag::Disabled),
        _ => None,
    }
}

features! {
    /// Several containers.
    multi_container = "multi-container", Enabled;
    /// Probes of sidecars.
    multi_container_probing = "multi-container-probing", Disabled;
    /// `affinity`.
    podspec_affinity = "kubernetes.podspec-affinity", Disabled;
    /// `topologySpreadConstraints`.
    podspec_topology_spread_constraints = "kubernetes.podspec-topologyspreadconstraints", Disabled;
    /// `hostAliases`.
    podspec_host_aliases = "kubernetes.podspec-hostaliases", Disabled;
    /// `nodeSelector`.
    podspec_node_selector = "kubernetes.podspec-nodeselector", Disabled;
    /// `tolerations`.
    podspec_tolerations = "kubernetes.podspec-tolerations", Disabled;
    /// `fieldRef` and `resourceFieldRef` in the environment.
    podspec_field_ref = "kubernetes.podspec-fieldref", Disabled;
    /// `runtimeClassName`.
    podspec_runtime_class_name = "kubernetes.podspec-runtimeclassname", Disabled;
    /// `dnsPolicy`.
    podspec_dns_policy = "kubernetes.podspec-dnspolicy", Disabled;
    /// `dnsConfig`.
    podspec_dns_config = "kubernetes.podspec-dnsconfig", Disabled;
    /// `securityContext` of the pod.
    podspec_security_context = "kubernetes.podspec-securitycontext", Disabled;
    /// `shareProcessNamespace`.
    podspec_share_process_namespace = "kubernetes.podspec-shareprocessnamespace", Disabled;
    /// `hostIPC`.
    podspec_host_ipc = "kubernetes.podspec-hostipc", Disabled;
    /// `hostPID`.
    podspec_host_pid = "kubernetes.podspec-hostpid", Disabled;
    /// `hostNetwork`.
    podspec_host_network = "kubernetes.podspec-hostnetwork", Disabled;
    /// `priorityClassName`.
    podspec_priority_class_name = "kubernetes.podspec-priorityclassname", Disabled;
    /// `schedulerName`.
    podspec_scheduler_name = "kubernetes.podspec-schedulername", Disabled;
    /// `initContainers`.
    podspec_init_containers = "kubernetes.podspec-init-containers", Disabled;
    /// `capabilities.add`.
    containerspec_add_capabilities = "kubernetes.containerspec-addcapabilities", Disabled;
    /// `emptyDir` volumes.
    podspec_volumes_empty_dir = "kubernetes.podspec-volumes-emptydir", Enabled;
    /// `hostPath` volumes.
    podspec_volumes_host_path = "kubernetes.podspec-volumes-hostpath", Disabled;
    /// `csi` volumes.
    podspec_volumes_csi = "kubernetes.podspec-volumes-csi", Disabled;
    /// `ephemeral` volumes.
    podspec_volumes_ephemeral = "kubernetes.podspec-volumes-ephemeral", Disabled;
    /// `image` volumes.
    podspec_volumes_image = "kubernetes.podspec-volumes-image", Disabled;
    /// `mountPropagation`.
    podspec_volumes_mount_propagation = "kubernetes.podspec-volumes-mount-propagation", Disabled;
    /// `persistentVolumeClaim` volumes.
    podspec_persistent_volume_claim = "kubernetes.podspec-persistent-volume-claim", Disabled;
    /// Writing to them.
    podspec_persistent_volume_write = "kubernetes.podspec-persistent-volume-write", Disabled;
    /// Routing by the header `Knative-Serving-Tag`.
    tag_header_based_routing = "tag-header-based-routing", Disabled;
    /// Finding out whether a container speaks h2c.
    autodetect_http2 = "autodetect-http2", Disabled;
    /// Pod info for the queue.
    queueproxy_mount_podinfo = "queueproxy.mount-podinfo", Disabled;
    /// Resource defaults for the queue.
    queueproxy_resource_defaults = "queueproxy.resource-defaults", Disabled;
}
