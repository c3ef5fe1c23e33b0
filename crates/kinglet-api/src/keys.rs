//! Labels and annotations that Knative gives a meaning, and the aliases some of them have.

use std::collections::BTreeMap;

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $value;)*
    };
}

keys! {
    /// Label: owning Service.
    SERVICE = "serving.knative.dev/service";
    /// Label: UID of the owning Service.
    SERVICE_UID = "serving.knative.dev/serviceUID";
    /// Label: owning Configuration.
    CONFIGURATION = "serving.knative.dev/configuration";
    /// Label: UID of the owning Configuration.
    CONFIGURATION_UID = "serving.knative.dev/configurationUID";
    /// Label: decimal generation of the Configuration that made a Revision.
    CONFIGURATION_GENERATION = "serving.knative.dev/configurationGeneration";
    /// Label: owning Revision.
    REVISION = "serving.knative.dev/revision";
    /// Label: UID of the owning Revision.
    REVISION_UID = "serving.knative.dev/revisionUID";
    /// Label: owning Route.
    ROUTE = "serving.knative.dev/route";
    /// Label: namespace of the owning Route.
    ROUTE_NAMESPACE = "serving.knative.dev/routeNamespace";
    /// Annotation: sorted Route names, joined by commas.
    ROUTES = "serving.knative.dev/routes";
    /// Label: `pending`, `active` or `reserve`.
    ROUTING_STATE = "serving.knative.dev/routingState";
    /// Annotation: when the routing state changed.
    ROUTING_STATE_MODIFIED = "serving.knative.dev/routingStateModified";
    /// Annotation: keep this Revision for ever.
    NO_GC = "serving.knative.dev/no-gc";
    /// Annotation: per-Revision deployment deadline.
    PROGRESS_DEADLINE = "serving.knative.dev/progress-deadline";
    /// Annotation: who created it.
    CREATOR = "serving.knative.dev/creator";
    /// Annotation: who last changed its spec.
    LAST_MODIFIER = "serving.knative.dev/lastModifier";
    /// Label: hash of the wanted Deployment.
    DEPLOYMENT_HASH = "serving.knative.dev/deployment-hash";
    /// Finalizer of the labeler on Routes.
    ROUTE_FINALIZER = "routes.serving.knative.dev";
    /// Label: `cluster-local` hides a Route from outside.
    VISIBILITY = "networking.knative.dev/visibility";
    /// Value of [`VISIBILITY`].
    VISIBILITY_CLUSTER_LOCAL = "cluster-local";
    /// Label: ServerlessService of a Kubernetes Service.
    SERVERLESS_SERVICE = "networking.internal.knative.dev/serverlessservice";
    /// Label: `Public` or `Private` Service of a ServerlessService.
    SERVICE_TYPE = "networking.internal.knative.dev/serviceType";
    /// Annotation on an Ingress: state of a gradual rollout, as JSON.
    ROLLOUT = "networking.internal.knative.dev/rollout";
    /// Annotation on an Ingress: tag to hosts, as JSON.
    TAG_TO_HOST = "networking.internal.knative.dev/tag-to-host";
    /// Annotation: mounts pod info for the queue.
    QUEUE_PROXY_PODINFO = "features.knative.dev/queueproxy-podinfo";
    /// Annotation: HTTP/1 full duplex.
    HTTP_FULL_DUPLEX = "features.knative.dev/http-full-duplex";
    /// Annotation on Pods: container that `kubectl logs` picks.
    DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container";
    /// Label on Deployments and Pods: the Revision's name.
    APP = "app";
    /// Label on a Namespace: no admission here.
    WEBHOOK_EXCLUDE = "webhooks.knative.dev/exclude";

    /// Annotation: which controller a Broker is for.
    BROKER_CLASS = "eventing.knative.dev/broker.class";
    /// Value of [`BROKER_CLASS`]: Knative's own, over channels.
    BROKER_CLASS_MT = "MTChannelBasedBroker";
    /// Label of what belongs to a Broker: its name.
    BROKER = "eventing.knative.dev/broker";
    /// Label of what a Broker made: `true`.
    BROKER_EVERYTHING = "eventing.knative.dev/brokerEverything";
    /// Label of a Trigger's Subscription: the Trigger's name.
    TRIGGER = "eventing.knative.dev/trigger";
    /// Label of a Broker that nobody asked for: `true`.
    INJECTED = "eventing.knative.dev/injected";
    /// Annotation of a Trigger: its Broker may be made for it.
    INJECTION = "eventing.knative.dev/injection";
    /// Annotation of a channel: `cluster` or `namespace`, whose dispatcher it has.
    SCOPE = "eventing.knative.dev/scope";
    /// Label of service accounts and Secrets for OIDC: `enabled`.
    OIDC = "eventing.knative.dev/oidc";
    /// Annotation of a Trigger: the object that it waits for, as JSON.
    DEPENDENCY = "knative.dev/dependency";
    /// Annotation of a channel: version of the subscribable duck type. Label of such CRDs: `true`.
    SUBSCRIBABLE = "messaging.knative.dev/subscribable";
    /// Annotation of a channel: events are answered before they are delivered.
    ASYNC_HANDLER = "messaging.knative.dev/async-handler";
    /// Label of an InMemoryChannel's Service.
    MESSAGING_ROLE = "messaging.knative.dev/role";
    /// Annotation of a Broker's status: address of its channel.
    CHANNEL_ADDRESS = "knative.dev/channelAddress";
    /// Annotation of a Broker's status: group and version of its channel.
    CHANNEL_API_VERSION = "knative.dev/channelAPIVersion";
    /// Annotation of a Broker's status: kind of its channel.
    CHANNEL_KIND = "knative.dev/channelKind";
    /// Annotation of a Broker's status: name of its channel.
    CHANNEL_NAME = "knative.dev/channelName";
    /// Annotation of a Broker's status: certificates of its channel's address.
    CHANNEL_CA_CERTS = "knative.dev/channelCACerts";
    /// Annotation of a Broker's status: OIDC audience of its channel.
    CHANNEL_AUDIENCE = "knative.dev/channelAudience";
    /// Annotation of an ApiServerSource: `true` leaves out the question whether its account may watch.
    SKIP_PERMISSIONS_CHECK = "features.knative.dev/apiserversource-skip-permissions-check";
    /// Annotation of a Trigger or Subscription: `ordered` or `unordered`, in Knative's Kafka class.
    KAFKA_DELIVERY_ORDER = "kafka.eventing.knative.dev/delivery.order";
    /// The same without a brand.
    DELIVERY_ORDER = "eventing.kinglet.dev/delivery-order";
    /// Label of a Namespace: its workloads may be bound to sinks (`true`).
    BINDING_INCLUDE = "bindings.knative.dev/include";
    /// Label of a Namespace or workload: never bound to a sink (`true`).
    BINDING_EXCLUDE = "bindings.knative.dev/exclude";
    /// Label of a JobSink's Jobs: the JobSink's name.
    JOB_SINK_NAME = "sinks.knative.dev/job-sink-name";
    /// Label of a JobSink's Job: made of the event's source and id.
    JOB_SINK_ID = "sinks.knative.dev/job-sink-id";

    /// Annotation: which autoscaler.
    AUTOSCALING_CLASS = "autoscaling.knative.dev/class";
    /// Value of [`AUTOSCALING_CLASS`]: Knative's own.
    AUTOSCALING_CLASS_KPA = "kpa.autoscaling.knative.dev";
    /// Value of [`AUTOSCALING_CLASS`]: Kubernetes' own.
    AUTOSCALING_CLASS_HPA = "hpa.autoscaling.knative.dev";
    /// Annotation: what is measured (`concurrency`, `rps`, `cpu`, `memory`, …).
    AUTOSCALING_METRIC = "autoscaling.knative.dev/metric";
    /// Group of the autoscaling annotations, with its slash.
    AUTOSCALING_PREFIX = "autoscaling.knative.dev/";
    /// Group of the serving keys, with its slash.
    SERVING_PREFIX = "serving.knative.dev/";
    /// Ingress class where none is configured: Knative's own default, which a takeover must keep.
    INGRESS_CLASS_ISTIO = "istio.ingress.networking.knative.dev";
    /// Kinglet's own ingress class, set in the `config-network` that we ship.
    INGRESS_CLASS_KINGLET = "kinglet.ingress.networking.knative.dev";
    /// Certificates by cert-manager, the default; standalone, where there is none, Kinglet makes them.
    CERTIFICATE_CLASS_CERT_MANAGER = "cert-manager.certificate.networking.knative.dev";
    /// Certificates by Kinglet itself.
    CERTIFICATE_CLASS_KINGLET = "kinglet.certificate.networking.knative.dev";
    /// Label: what a Certificate is for, and its value for hosts of Routes.
    CERTIFICATE_TYPE = "networking.knative.dev/certificate-type";
    /// Value of [`CERTIFICATE_TYPE`] for public hosts.
    CERTIFICATE_TYPE_EXTERNAL = "external-domain";
    /// Label of a Secret: UID of the Certificate that it is from.
    CERTIFICATE_UID = "networking.internal.knative.dev/certificate-uid";
}

/// A key with its aliases: the first that is present wins, even if its value is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority(&'static [&'static str]);

impl Priority {
    /// The key to write and to name in errors.
    pub fn canonical(self) -> &'static str {
        self.0[0]
    }

    /// All keys, the canonical one first.
    pub fn all(self) -> &'static [&'static str] {
        self.0
    }

    /// The key that is present and its value.
    pub fn find(self, from: &BTreeMap<String, String>) -> Option<(&'static str, &str)> {
        self.0
            .iter()
            .find_map(|key| from.get(*key).map(|value| (*key, value.as_str())))
    }

    /// Only the value.
    pub fn get(self, from: Option<&BTreeMap<String, String>>) -> Option<&str> {
        self.find(from?).map(|(_, value)| value)
    }
}

macro_rules! priorities {
    ($($(#[$doc:meta])* $name:ident = $($key:literal),+;)*) => {
        $($(#[$doc])* pub const $name: Priority = Priority(&[$($key),+]);)*
    };
}

priorities! {
    /// Fewest pods.
    MIN_SCALE = "autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/minScale";
    /// Most pods.
    MAX_SCALE = "autoscaling.knative.dev/max-scale", "autoscaling.knative.dev/maxScale";
    /// Pods that must have been ready once.
    INITIAL_SCALE = "autoscaling.knative.dev/initial-scale", "autoscaling.knative.dev/initialScale";
    /// Fewest pods once above zero.
    ACTIVATION_SCALE = "autoscaling.knative.dev/activation-scale";
    /// `linear` or `weighted-exponential`.
    METRIC_AGGREGATION_ALGORITHM = "autoscaling.knative.dev/metric-aggregation-algorithm", "autoscaling.knative.dev/metricAggregationAlgorithm";
    /// Load, in percent of the target, at which panic begins.
    PANIC_THRESHOLD_PERCENTAGE = "autoscaling.knative.dev/panic-threshold-percentage", "autoscaling.knative.dev/panicThresholdPercentage";
    /// Panic window in percent of the stable one.
    PANIC_WINDOW_PERCENTAGE = "autoscaling.knative.dev/panic-window-percentage", "autoscaling.knative.dev/panicWindowPercentage";
    /// How long a lower load must last.
    SCALE_DOWN_DELAY = "autoscaling.knative.dev/scale-down-delay", "autoscaling.knative.dev/scaleDownDelay";
    /// How long the last pod stays.
    SCALE_TO_ZERO_POD_RETENTION_PERIOD = "autoscaling.knative.dev/scale-to-zero-pod-retention-period", "autoscaling.knative.dev/scaleToZeroPodRetentionPeriod";
    /// Spare capacity below which the activator stays in the path.
    TARGET_BURST_CAPACITY = "autoscaling.knative.dev/target-burst-capacity", "autoscaling.knative.dev/targetBurstCapacity";
    /// Share of the target that is aimed at.
    TARGET_UTILIZATION_PERCENTAGE = "autoscaling.knative.dev/target-utilization-percentage", "autoscaling.knative.dev/targetUtilizationPercentage";
    /// Target per pod.
    TARGET = "autoscaling.knative.dev/target";
    /// Stable window.
    WINDOW = "autoscaling.knative.dev/window";
    /// Duration of a gradual rollout.
    ROLLOUT_DURATION = "serving.knative.dev/rollout-duration", "serving.knative.dev/rolloutDuration";
    /// Per-Revision deployment deadline ([`PROGRESS_DEADLINE`]).
    PROGRESS_DEADLINE_PRIORITY = "serving.knative.dev/progress-deadline";
    /// Share of the user container's resources for the queue.
    QUEUE_RESOURCE_PERCENTAGE = "queue.sidecar.serving.knative.dev/resource-percentage", "queue.sidecar.serving.knative.dev/resourcePercentage";
    /// Which gateway.
    INGRESS_CLASS = "networking.knative.dev/ingress.class", "networking.knative.dev/ingress-class";
    /// Which certificate maker.
    CERTIFICATE_CLASS = "networking.knative.dev/certificate.class", "networking.knative.dev/certificate-class";
    /// What plain HTTP gets.
    HTTP_OPTION = "networking.knative.dev/httpOption", "networking.knative.dev/http-protocol";
    /// No automatic certificate.
    DISABLE_AUTO_TLS = "networking.knative.dev/disableAutoTLS", "networking.knative.dev/disable-auto-tls", "networking.knative.dev/disable-external-domain-tls";
    /// CPU request of the queue.
    QUEUE_CPU_REQUEST = "queue.sidecar.serving.knative.dev/cpu-resource-request";
    /// CPU limit of the queue.
    QUEUE_CPU_LIMIT = "queue.sidecar.serving.knative.dev/cpu-resource-limit";
    /// Memory request of the queue.
    QUEUE_MEMORY_REQUEST = "queue.sidecar.serving.knative.dev/memory-resource-request";
    /// Memory limit of the queue.
    QUEUE_MEMORY_LIMIT = "queue.sidecar.serving.knative.dev/memory-resource-limit";
    /// Ephemeral storage request of the queue.
    QUEUE_EPHEMERAL_STORAGE_REQUEST = "queue.sidecar.serving.knative.dev/ephemeral-storage-resource-request";
    /// Ephemeral storage limit of the queue.
    QUEUE_EPHEMERAL_STORAGE_LIMIT = "queue.sidecar.serving.knative.dev/ephemeral-storage-resource-limit";
}
