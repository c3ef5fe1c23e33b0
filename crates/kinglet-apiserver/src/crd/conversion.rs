//! `spec.conversion`: its defaults and rules, in the words of the real server.

use http::Uri;
use serde_json::Value;

use crate::conversion::review::SPOKEN;
use crate::names;
use crate::object::{at, child, default, items, number, text};
use crate::status::Cause;

type Fields = serde_json::Map<String, Value>;

const PLACE: &str = "spec.conversion";
/// The real server names the fields of its inner form.
const CLIENT: &str = "spec.conversion.webhookClientConfig";
const REVIEWS: &str = "spec.conversion.conversionReviewVersions";
const URL_FORM: &str = "desired format: https://host[/path]";

/// Fills in the strategy and the port of a service.
pub(super) fn fill(spec: &mut Fields) {
    let conversion = child(spec, "conversion");
    crate::object::default_text(conversion, "strategy", "None");
    let service = conversion
        .get_mut("webhook")
        .and_then(|webhook| webhook.get_mut("clientConfig"))
        .and_then(|config| config.get_mut("service"))
        .and_then(Value::as_object_mut);
    if let Some(service) = service {
        default(service, "port", 443);
    }
}

/// Judges `spec.conversion`.
pub(super) fn validate(spec: &Value, causes: &mut Vec<Cause>) {
    let webhook = at(spec, &["conversion", "webhook"]).filter(|webhook| webhook.is_object());
    let config = webhook
        .and_then(|webhook| webhook.get("clientConfig"))
        .filter(|config| config.is_object());
    let reviews = webhook.map_or(&[][..], |webhook| {
        items(webhook, &["conversionReviewVersions"])
    });
    match text(spec, &["conversion", "strategy"]) {
        "Webhook" => {
            match config {
                None => causes.push(Cause::required(
                    CLIENT,
                    "required when strategy is set to Webhook",
                )),
                Some(config) => validate_client(config, causes),
            }
            validate_reviews(reviews, causes);
        }
        "None" => {
            let unset = "should not be set when strategy is not set to Webhook";
            if config.is_some() {
                causes.push(Cause::forbidden(CLIENT, unset));
            }
            if !reviews.is_empty() {
                causes.push(Cause::forbidden(REVIEWS, unset));
            }
        }
        other => causes.push(Cause::unsupported(
            format!("{PLACE}.strategy"),
            &other.into(),
            &["None", "Webhook"],
        )),
    }
}

fn validate_client(config: &Value, causes: &mut Vec<Cause>) {
    let url = config.get("url").and_then(Value::as_str);
    let service = config.get("service").filter(|service| service.is_object());
    match (url, service) {
        (Some(url), None) => validate_url(url, causes),
        (None, Some(service)) => validate_service(service, causes),
        _ => causes.push(Cause::required(
            CLIENT,
            "exactly one of url or service is required",
        )),
    }
}

/// The parts of a URL as Go splits it.
struct Parts<'u> {
    scheme: &'u str,
    user: Option<&'u str>,
    host: &'u str,
    query: &'u str,
    fragment: &'u str,
}

fn split(url: &str) -> Parts<'_> {
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = url
        .split_once(':')
        .filter(|(scheme, _)| is_scheme(scheme))
        .unwrap_or(("", url));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest
        .strip_prefix("//")
        .map_or("", |rest| rest.split('/').next().unwrap_or(""));
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    Parts {
        scheme,
        user,
        host,
        query,
        fragment,
    }
}

fn validate_url(url: &str, causes: &mut Vec<Cause>) {
    let before = causes.len();
    let mut wrong = |value: &str, detail: &str| {
        causes.push(Cause::invalid(
            format!("{CLIENT}.url"),
            &value.into(),
            detail,
        ));
    };
    let parts = split(url);
    if !parts.scheme.eq_ignore_ascii_case("https") {
        let detail = format!("'https' is the only allowed URL scheme; {URL_FORM}");
        wrong(parts.scheme, &detail);
    }
    if parts.host.is_empty() {
        wrong("", &format!("host must be specified; {URL_FORM}"));
    }
    if let Some(user) = parts.user {
        wrong(user, "user information is not permitted in the URL");
    }
    if !parts.fragment.is_empty() {
        wrong(parts.fragment, "fragments are not permitted in the URL");
    }
    if !parts.query.is_empty() {
        wrong(parts.query, "query parameters are not permitted in the URL");
    }
    if causes.len() == before
        && let Err(error) = url.parse::<Uri>()
    {
        let detail = format!("url must be a valid URL: {error}; {URL_FORM}");
        causes.push(Cause::invalid(
            format!("{CLIENT}.url"),
            &url.into(),
            &detail,
        ));
    }
}

fn validate_service(service: &Value, causes: &mut Vec<Cause>) {
    let place = format!("{CLIENT}.service");
    for field in ["name", "namespace"] {
        if text(service, &[field]).is_empty() {
            causes.push(Cause::required(format!("{place}.{field}"), ""));
        }
    }
    let port = number(service, &["port"]).unwrap_or(443);
    if !(1..=65_535).contains(&port) {
        causes.push(Cause::invalid(
            format!("{place}.port"),
            &port.into(),
            "port is not valid: must be between 1 and 65535, inclusive",
        ));
    }
    let path = text(service, &["path"]);
    let mut wrong = |detail: &str| {
        causes.push(Cause::invalid(
            format!("{place}.path"),
            &path.into(),
            detail,
        ));
    };
    if matches!(path, "" | "/") {
        return;
    }
    if path == "//" {
        return wrong("segment[0] may not be empty");
    }
    if !path.starts_with('/') {
        wrong("must start with a '/'");
    }
    let mut chars = path.chars();
    chars.next();
    let rest = chars.as_str();
    for (index, segment) in rest
        .strip_suffix('/')
        .unwrap_or(rest)
        .split('/')
        .enumerate()
    {
        if segment.is_empty() {
            wrong(&format!("segment[{index}] may not be empty"));
        } else if let Some(detail) = names::subdomain(segment) {
            wrong(&format!("segment[{index}]: {detail}"));
        }
    }
}

fn validate_reviews(reviews: &[Value], causes: &mut Vec<Cause>) {
    if reviews.is_empty() {
        causes.push(Cause::required(REVIEWS, ""));
        return;
    }
    let mut spoken = false;
    for (index, review) in reviews.iter().enumerate() {
        let name = review.as_str().unwrap_or("");
        let place = format!("{REVIEWS}[{index}]");
        spoken |= SPOKEN.contains(&name);
        if reviews[..index].contains(review) {
            causes.push(Cause::invalid(place, review, "duplicate version"));
        } else if let Some(wrong) = names::label_1035(name) {
            causes.push(Cause::invalid(place, review, &wrong));
        }
    }
    if !spoken {
        causes.push(Cause::invalid(
            REVIEWS,
            &Value::Array(reviews.to_vec()),
            "must include at least one of v1, v1beta1",
        ));
    }
}
