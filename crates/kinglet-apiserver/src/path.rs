//! From a request's path and query to what is asked for.

use std::borrow::Cow;

use http::Method;

/// What a path points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/api`, `/apis`, `/healthz` and the like; the whole path.
    Other(String),
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`.
    GroupVersion(String, String),
    /// A resource.
    Resource(RequestInfo),
}

/// Where a resource request points.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    /// Empty for cluster-wide.
    pub(crate) namespace: String,
    /// Empty for a collection.
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// What follows the subresource.
    pub(crate) rest: String,
    /// The old form `/watch/`.
    pub(crate) watch: bool,
}

impl RequestInfo {
    /// The namespace whose rights count: a namespace itself is its own.
    pub(crate) fn scope(&self) -> &str {
        if self.group.is_empty() && self.resource == "namespaces" {
            &self.name
        } else {
            &self.namespace
        }
    }
}

/// Reads a path.
pub(crate) fn parse(path: &str) -> Target {
    let trimmed = path.trim_matches('/');
    let decoded: Vec<Cow<'_, str>> = trimmed.split('/').map(decode).collect();
    let parts: Vec<&str> = decoded.iter().map(|part| &**part).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version] => return Target::GroupVersion(String::new(), (*version).to_owned()),
        ["apis", group] => return Target::Group((*group).to_owned()),
        ["apis", group, version] => {
            return Target::GroupVersion((*group).to_owned(), (*version).to_owned());
        }
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Target::Other(format!("/{trimmed}")),
    };
    let (watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let (namespace, resource, rest) = match rest {
        // `/namespaces/NAME/finalize` and `/status` belong to the namespace itself.
        ["namespaces", name, sub @ ("status" | "finalize")] => {
            ("", "namespaces", vec![*name, *sub])
        }
        ["namespaces", namespace, resource, rest @ ..] => (*namespace, *resource, rest.to_vec()),
        [resource, rest @ ..] => ("", *resource, rest.to_vec()),
        [] => return Target::Other(format!("/{trimmed}")),
    };
    let piece = |at: usize| {
        rest.get(at)
            .map_or_else(String::new, |part| (*part).to_owned())
    };
    Target::Resource(RequestInfo {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: piece(0),
        subresource: piece(1),
        rest: rest.get(2..).unwrap_or_default().join("/"),
        watch,
    })
}

/// Percent decoding; what is not UTF-8 stays as it came.
pub(crate) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| {
            bytes
                .get(at + offset)
                .and_then(|b| char::from(*b).to_digit(16))
        };
        if bytes[at] == b'%'
            && let (Some(high), Some(low)) = (hex(1), hex(2))
        {
            out.push(u8::try_from(high * 16 + low).expect("two hex digits make a byte"));
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The query's parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query
            .unwrap_or("")
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                let plain = |text: &str| decode(&text.replace('+', " ")).into_owned();
                (plain(key), plain(value))
            });
        Self(pairs.collect())
    }

    /// A parameter's value; empty when absent.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map_or("", |(_, value)| value)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    /// Go's reading of a boolean parameter: present and neither `false` nor `0`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.0
            .iter()
            .any(|(name, value)| name == key && !matches!(value.as_str(), "false" | "0"))
    }

    pub(crate) fn number(&self, key: &str) -> Option<i64> {
        self.get(key).parse().ok()
    }

    /// The first of these parameters that is no number, and says so as Go does.
    pub(crate) fn not_a_number(&self, keys: &[&str]) -> Option<String> {
        keys.iter().find_map(|key| {
            let value = self.get(key);
            let error = value.parse::<i64>().err().filter(|_| !value.is_empty())?;
            let wrong = match error.kind() {
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
                    "value out of range"
                }
                _ => "invalid syntax",
            };
            Some(format!("strconv.ParseInt: parsing \"{value}\": {wrong}"))
        })
    }

    /// All values of a repeated parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }
}

/// The verb that authorization speaks of.
pub(crate) fn verb(method: &Method, info: &RequestInfo, query: &Query) -> Option<&'static str> {
    let collection = info.name.is_empty();
    Some(match *method {
        Method::GET | Method::HEAD => match collection {
            _ if info.watch || query.flag("watch") => "watch",
            true => "list",
            false => "get",
        },
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if collection => "deletecollection",
        Method::DELETE => "delete",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_is_meant() {
        let info = |path| match parse(path) {
            Target::Resource(p) => [
                p.group,
                p.version,
                p.namespace,
                p.resource,
                p.name,
                p.subresource,
                p.rest,
            ]
            .join("|"),
            other => format!("{other:?}"),
        };
        for (path, expected) in [
            ("/api/v1/pods", "|v1||pods|||"),
            ("/api/v1/namespaces/a/pods/b/log", "|v1|a|pods|b|log|"),
            ("/api/v1/namespaces/a", "|v1||namespaces|a||"),
            (
                "/api/v1/namespaces/a/finalize",
                "|v1||namespaces|a|finalize|",
            ),
            (
                "/api/v1/namespaces/a/services/s/proxy/x/y",
                "|v1|a|services|s|proxy|x/y",
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "apps|v1|a|deployments|d|scale|",
            ),
            ("/apis/apps/v1/deployments", "apps|v1||deployments|||"),
            ("/api/v1/watch/namespaces/a/pods", "|v1|a|pods|||"),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "rbac.authorization.k8s.io|v1||clusterroles|system:node||",
            ),
            ("/apis/apps/v1", "GroupVersion(\"apps\", \"v1\")"),
            ("/api", "Other(\"/api\")"),
            ("/readyz/", "Other(\"/readyz\")"),
        ] {
            assert_eq!(info(path), expected, "{path}");
        }
    }

    #[test]
    fn queries_decode() {
        let query = Query::parse(Some(
            "labelSelector=a%3Db%2Cc+in+%28d%29&watch=1&limit=500&dryRun=All&x",
        ));
        assert_eq!(query.get("labelSelector"), "a=b,c in (d)");
        assert!(query.flag("watch") && query.flag("x") && !query.flag("y"));
        assert_eq!(query.number("limit"), Some(500));
        assert_eq!(query.all("dryRun").collect::<Vec<_>>(), ["All"]);
    }
}
