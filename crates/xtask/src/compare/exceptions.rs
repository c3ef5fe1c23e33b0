//! Where Kinglet differs on purpose, each with its reason.

use super::differ::Difference;

/// Kind (or `*`), how the path begins (or `*` and how it ends), reason.
const EXCEPTIONS: [(&str, &str, &str); 16] = [
    ("Ingress", ".metadata.annotations.networking.knative.dev/ingress.class", "our own ingress class is the one in force"),
    ("Ingress", ".status.publicLoadBalancer", "our own gateway"),
    ("Ingress", ".status.privateLoadBalancer", "our own gateway"),
    ("Service", ".spec.externalName", "our own gateway"),
    ("ServerlessService", ".spec.numActivators", "one process is the only activator"),
    ("*", "*.metadata.generation", "fewer rewrites on the way to the same spec"),
    ("*", "*.status.observedGeneration", "fewer rewrites on the way to the same spec"),
    ("*", "*serving.knative.dev/deployment-hash", "any stable hash will do (spec 4.3.2)"),
    ("*", "*serving.knative.dev/creator", "the administrator has another name here"),
    ("*", "*serving.knative.dev/lastModifier", "the administrator has another name here"),
    ("Pod", ".spec.nodeName", "this machine"),
    ("Endpoints", "*.nodeName", "this machine"),
    ("EndpointSlice", "*.nodeName", "this machine"),
    ("Endpoints", "*.targetRef.name", "the activator is this process"),
    ("EndpointSlice", "*.targetRef.name", "the activator is this process"),
    ("*", "*.image", "the queue-proxy image is our own, and images are named as pulled"),
];

/// The reason why a difference is accepted.
pub(crate) fn reason(kind: &str, difference: &Difference) -> Option<&'static str> {
    EXCEPTIONS
        .iter()
        .find(|(of, path, _)| {
            (*of == "*" || *of == kind)
                && match path.strip_prefix('*') {
                    Some(end) => difference.path.ends_with(end),
                    None => difference.path.starts_with(path),
                }
        })
        .map(|(_, _, reason)| *reason)
}
