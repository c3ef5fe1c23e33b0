//! Headers of requests between the stages: which are forwarded, and which a stage adds (spec/eventing.md 7.3, 7.6).

use http::{HeaderMap, HeaderName, HeaderValue};

/// Asks a subscriber for a reply.
pub static PREFER: HeaderName = HeaderName::from_static("prefer");
/// The value of [`PREFER`].
pub static PREFER_REPLY: HeaderValue = HeaderValue::from_static("reply");
/// The namespace of the Trigger or Subscription that a request belongs to.
pub static KN_NAMESPACE: HeaderName = HeaderName::from_static("kn-namespace");

/// Headers that are forwarded from one request to the next, whole names and prefixes. The trace context is carried by
/// Knative's instrumentation, the others by its list.
const FORWARDED: [&str; 4] = ["x-request-id", "retry-after", "traceparent", "tracestate"];
const FORWARDED_PREFIXES: [&str; 2] = ["knative-", "x-b3-"];

/// Whether a header of a request is passed on with the event.
pub fn is_forwarded(name: &HeaderName) -> bool {
    let name = name.as_str();
    FORWARDED.contains(&name)
        || FORWARDED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// The headers that are passed on, every value of each.
pub fn forwarded(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| is_forwarded(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// For whom a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A subscriber, which may reply.
    Subscriber,
    /// A dead letter sink or the address of replies; what it answers with is not read.
    Sink,
}

/// Headers of a delivery beside those of the event: what is passed on, the namespace, and the wish for a reply.
pub fn delivery(passed_on: &HeaderMap, namespace: &str, purpose: Purpose) -> HeaderMap {
    let mut headers = forwarded(passed_on);
    // A namespace is a DNS label, and so a header value.
    if let Ok(namespace) = HeaderValue::from_str(namespace) {
        headers.insert(KN_NAMESPACE.clone(), namespace);
    }
    if purpose == Purpose::Subscriber {
        headers.insert(PREFER.clone(), PREFER_REPLY.clone());
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_headers_are_passed_on() {
        let headers: HeaderMap = [
            "x-request-id",
            "retry-after",
            "knative-foo",
            "x-b3-traceid",
            "traceparent",
            "tracestate",
            "x-custom",
            "authorization",
            "cookie",
            "ce-id",
            "content-type",
            "host",
            "kn-namespace",
            "prefer",
            "x-b3",
        ]
        .into_iter()
        .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("v")))
        .collect();
        let mut passed: Vec<String> = forwarded(&headers)
            .keys()
            .map(|name| name.as_str().to_owned())
            .collect();
        passed.sort();
        let expected = [
            "knative-foo",
            "retry-after",
            "traceparent",
            "tracestate",
            "x-b3-traceid",
            "x-request-id",
        ];
        assert_eq!(passed, expected);
    }

    #[test]
    fn a_subscriber_is_asked_for_a_reply_and_a_dead_letter_sink_is_not() {
        let mut passed = HeaderMap::new();
        passed.insert("prefer", HeaderValue::from_static("something"));
        passed.append("knative-a", HeaderValue::from_static("1"));
        passed.append("knative-a", HeaderValue::from_static("2"));
        let subscriber = delivery(&passed, "ns", Purpose::Subscriber);
        assert_eq!(subscriber.get("prefer").unwrap(), "reply");
        assert_eq!(subscriber.get("kn-namespace").unwrap(), "ns");
        assert_eq!(subscriber.get_all("knative-a").iter().count(), 2);
        let sink = delivery(&passed, "ns", Purpose::Sink);
        assert!(sink.get("prefer").is_none());
        assert_eq!(sink.get("kn-namespace").unwrap(), "ns");
    }
}
