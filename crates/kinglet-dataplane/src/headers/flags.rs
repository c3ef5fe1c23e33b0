//! Which headers that matter to a gateway a message has: found in one pass, because asking a header map for twenty names
//! that are hardly ever there costs more than the rest of the gateway's work.

use http::HeaderMap;

/// A set of findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeaderFlags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $flag:ident = $bit:literal;)*) => {
        impl HeaderFlags { $($(#[$doc])* pub(crate) const $flag: Self = Self(1 << $bit);)* }
    };
}

flags! {
    CONNECTION = 0;
    UPGRADE = 1;
    TE = 2;
    EXPECT = 3;
    /// Other headers for one hop only.
    HOP = 4;
    FORWARDED = 5;
    FORWARDED_FOR = 6;
    FORWARDED_PROTO = 7;
    FORWARDED_HOST = 8;
    REQUEST_ID = 9;
    TRACE = 10;
    /// Names between Knative's own components.
    KNATIVE = 11;
    NETWORK_HASH = 12;
    NETWORK_PROBE = 13;
    KUBELET_PROBE = 14;
    COOKIE = 15;
    GRPC = 16;
    EVENT_STREAM = 17;
    CONTENT_LENGTH = 18;
    TRANSFER_ENCODING = 19;
    /// The client promises that the request may be sent twice (as Go's transport reads it).
    IDEMPOTENCY_KEY = 20;
    /// An activator has counted the request.
    PROXIED = 21;
    /// The user agent is one of those that ask a queue-proxy for its readiness.
    QUEUE_PROBE = 22;
}

impl HeaderFlags {
    /// Looks at all headers once.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            let value = value.as_bytes();
            found.0 |= match name.as_str() {
                "connection" => Self::CONNECTION,
                "upgrade" => Self::UPGRADE,
                "te" => Self::TE,
                "expect" => Self::EXPECT,
                "keep-alive"
                | "proxy-connection"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "http2-settings" => Self::HOP,
                "transfer-encoding" => Self(Self::HOP.0 | Self::TRANSFER_ENCODING.0),
                "idempotency-key" | "x-idempotency-key" => Self::IDEMPOTENCY_KEY,
                "forwarded" => Self::FORWARDED,
                "x-forwarded-for" => Self::FORWARDED_FOR,
                "x-forwarded-proto" => Self::FORWARDED_PROTO,
                "x-forwarded-host" => Self::FORWARDED_HOST,
                "x-request-id" => Self::REQUEST_ID,
                "k-kinglet-trace" => Self::TRACE,
                "knative-serving-revision" | "knative-serving-namespace" | "k-original-host" => {
                    Self::KNATIVE
                }
                "k-network-hash" => Self::NETWORK_HASH,
                "k-network-probe" if !value.is_empty() => Self::NETWORK_PROBE,
                "k-kubelet-probe" if !value.is_empty() => Self::KUBELET_PROBE,
                "k-proxy-request" if value == b"activator" => Self::PROXIED,
                "user-agent" if value.starts_with(b"kube-probe/") => {
                    Self(Self::KUBELET_PROBE.0 | Self::QUEUE_PROBE.0)
                }
                "user-agent"
                    if value.starts_with(b"Knative-Activator-Probe")
                        || value.starts_with(b"Knative-Autoscaling-Probe") =>
                {
                    Self::QUEUE_PROBE
                }
                "cookie" => Self::COOKIE,
                "content-type" if value.starts_with(b"application/grpc") => Self::GRPC,
                "content-type" if value.starts_with(b"text/event-stream") => Self::EVENT_STREAM,
                "content-length" => Self::CONTENT_LENGTH,
                _ => Self::default(),
            }
            .0;
        }
        found
    }

    pub(crate) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }
}
