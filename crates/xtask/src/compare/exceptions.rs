//! Where Kinglet differs on purpose, each with its reason.

use super::differ::Difference;

const REWRITES: &str = "fewer (or more) rewrites on the way to the same spec";
const REFUSED: &str = "a Deployment that is refused is told in conditions at once; upstream leaves the Revision Deploying for good";
const BATCHES: &str = "a note about the last write, there or not as changes happened to be batched (in the recording, too)";

/// Kind (or `*`, or `*/` and how the name begins), how the path begins (or `*` and how it ends), reason.
const EXCEPTIONS: [(&str, &str, &str); 25] = [
    ("*/probe-tcp", ".status.conditions", REFUSED),
    (
        "Ingress",
        ".metadata.annotations.networking.knative.dev/ingress.class",
        "our own ingress class is the one in force",
    ),
    ("Ingress", ".status.publicLoadBalancer", "our own gateway"),
    ("Ingress", ".status.privateLoadBalancer", "our own gateway"),
    ("Service", ".spec.externalName", "our own gateway"),
    (
        "ServerlessService",
        ".spec.numActivators",
        "one process is the only activator",
    ),
    ("PodAutoscaler", ".metadata.generation", REWRITES),
    ("PodAutoscaler", ".status.observedGeneration", REWRITES),
    ("ServerlessService", ".metadata.generation", REWRITES),
    ("ServerlessService", ".status.observedGeneration", REWRITES),
    ("Ingress", ".metadata.generation", REWRITES),
    ("Ingress", ".status.observedGeneration", REWRITES),
    ("EndpointSlice", ".metadata.generation", REWRITES),
    (
        "*",
        "*serving.knative.dev/deployment-hash",
        "any stable hash will do (spec 4.3.2)",
    ),
    (
        "*",
        "*serving.knative.dev/creator",
        "the administrator has another name here",
    ),
    (
        "*",
        "*serving.knative.dev/lastModifier",
        "the administrator has another name here",
    ),
    ("Pod", ".spec.nodeName", "this machine"),
    ("Endpoints", "*.nodeName", "this machine"),
    ("EndpointSlice", "*.nodeName", "this machine"),
    (
        "Endpoints",
        "*.targetRef.name",
        "the activator is this process",
    ),
    (
        "EndpointSlice",
        "*.targetRef.name",
        "the activator is this process",
    ),
    (
        "*",
        "*[queue-proxy].image",
        "the queue-proxy image is our own",
    ),
    (
        "Pod",
        ".status.containerStatuses[queue-proxy].imageID",
        "no image of queue-proxy is pulled: the node is the queue-proxy",
    ),
    (
        "Endpoints",
        ".metadata.annotations.endpoints.kubernetes.io/last-change-trigger-time",
        BATCHES,
    ),
    (
        "EndpointSlice",
        ".metadata.annotations.endpoints.kubernetes.io/last-change-trigger-time",
        BATCHES,
    ),
];

/// Steps that real Knative refused and Kinglet accepts: scenario, file, reason. They are tried with `--dry-run=server`.
const ACCEPTED: [(&str, &str, &str); 1] = [(
    "01-ready",
    "apply-3.yaml",
    "the template under a kept name is the stored one but for defaults: no change, so traffic can be split with the very manifest that made the revision",
)];

/// Events that differ: what the line contains, reason.
const EVENTS: [(&str, &str); 10] = [
    (
        "Readiness probe failed: Get \"http://",
        "the node asks the container itself and is refused at once, where queue-proxy holds the question",
    ),
    (
        "Readiness probe failed: dial tcp ",
        "the node asks the container itself and is refused at once, where queue-proxy holds the question",
    ),
    ("Error: failed to create containerd task: ", LAST_WORDS),
    ("Error: exec: \"/no-such-program\"", LAST_WORDS),
    (
        "exceeded quota: none",
        "no name is drawn for a pod that a quota refuses, so its message is always the same",
    ),
    ("/probe-tcp", REFUSED),
    (": Successfully assigned ", "this machine has another name"),
    (
        "Readiness probe failed: HTTP probe failed with statuscode: 503",
        "the queue-proxy of a pod that goes is not asked again",
    ),
    (
        "not found",
        "upstream's reconcilers meet objects that are not there yet",
    ),
    (
        "Container image \"kn.local/queue:1\" already present",
        "the queue-proxy image is our own, and nothing is pulled",
    ),
];

const CAUSE: &str =
    "the message carries the cause, which upstream leaves to be looked up (docs/differences.md)";
const LAST_WORDS: &str = "times and the runtime's words differ";

/// Messages of conditions that differ in the recordings of failures: how the scenario begins, what the recorded message
/// holds, reason.
const FAILURES: [(&str, &str, &str); 6] = [
    ("06", " does not have any ready Revision.", CAUSE),
    ("08", " does not have any ready Revision.", CAUSE),
    ("09", " does not have any ready Revision.", CAUSE),
    ("06", "Container failed with: ", LAST_WORDS),
    ("08", "Initial scale was never achieved", CAUSE),
    ("09", "Initial scale was never achieved", CAUSE),
];

/// The reason why a difference is accepted.
pub(crate) fn reason(
    scenario: &str,
    object: &str,
    difference: &Difference,
) -> Option<&'static str> {
    let recorded = difference
        .expected
        .as_ref()
        .and_then(|value| value.as_str())
        .unwrap_or_default();
    let failure = FAILURES
        .iter()
        .filter(|_| {
            difference.path.contains(".status.conditions[") && difference.path.ends_with(".message")
        })
        .find(|(begin, holds, _)| scenario.starts_with(begin) && recorded.contains(holds))
        .map(|(.., reason)| *reason);
    // Which of two writes came first: the recording of 08 has the reason, that of 09 has not.
    let deploying = scenario.starts_with("09")
        && difference.path == ".status.conditions[ContainerHealthy].reason"
        && recorded.is_empty();
    if failure.is_some() {
        return failure;
    }
    if deploying {
        return Some(BATCHES);
    }
    EXCEPTIONS
        .iter()
        .find(|(of, path, _)| {
            of_object(of, object)
                && match path.strip_prefix('*') {
                    Some(end) => difference.path.ends_with(end),
                    None => difference.path.starts_with(path),
                }
        })
        .map(|(_, _, reason)| *reason)
}

fn of_object(of: &str, object: &str) -> bool {
    let (kind, name) = object.split_once('/').unwrap_or((object, ""));
    of == "*"
        || of == kind
        || of
            .strip_prefix("*/")
            .is_some_and(|begin| name.starts_with(begin))
}

/// The reason why a step is accepted that was refused in the recording.
pub(crate) fn accepted(scenario: &str, file: &str) -> Option<&'static str> {
    ACCEPTED
        .iter()
        .find(|(of, step, _)| *of == scenario && *step == file)
        .map(|(_, _, reason)| *reason)
}

/// The reason why an Event may be missing or extra.
pub(crate) fn event(line: &str) -> Option<&'static str> {
    EVENTS
        .iter()
        .find(|(part, _)| line.contains(part))
        .map(|(_, reason)| *reason)
}
