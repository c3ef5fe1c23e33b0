//! Who may send: tokens and EventPolicies (spec/eventing.md 7.8).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode, header};
use kinglet_events::Event;

use crate::answer::{Answer, refuse};
use crate::feed::{Access, DefaultAccess, ServiceAccount};

/// Why a token says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The token is no good: 401.
    #[error("the token is not accepted: {0}")]
    Refused(String),
    /// It could not be verified: 500.
    #[error("verifying the token: {0}")]
    Unavailable(String),
}

/// Reads tokens.
pub trait Verify: Send + Sync {
    /// The subject of a token that is meant for `audience`.
    fn verify<'a>(
        &'a self,
        token: &'a str,
        audience: &'a str,
    ) -> BoxFuture<'a, Result<Arc<str>, VerifyError>>;
}

/// Gives tokens.
pub trait Tokens: Send + Sync {
    /// A token of a ServiceAccount for an audience, or why there is none.
    fn token<'a>(
        &'a self,
        identity: &'a ServiceAccount,
        audience: &'a str,
    ) -> BoxFuture<'a, Result<Arc<str>, String>>;
}

/// For programs without an API to ask: nobody is who they say.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAuthority;

impl Verify for NoAuthority {
    fn verify<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Arc<str>, VerifyError>> {
        let why = "there is no issuer of tokens that could be asked".to_owned();
        Box::pin(std::future::ready(Err(VerifyError::Unavailable(why))))
    }
}

impl Tokens for NoAuthority {
    fn token<'a>(
        &'a self,
        identity: &'a ServiceAccount,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Arc<str>, String>> {
        let why = format!("there is nobody who gives tokens of ServiceAccount {identity}");
        Box::pin(std::future::ready(Err(why)))
    }
}

/// Who sends.
#[derive(Clone, Copy)]
pub(crate) enum Sender<'a> {
    /// Whoever has the token of this request.
    Request(&'a HeaderMap),
    /// A stage of this process, as this account.
    Stage(Option<&'a ServiceAccount>),
}

/// The subject that a ServiceAccount's tokens have.
pub(crate) fn subject_of(account: &ServiceAccount) -> Arc<str> {
    format!(
        "system:serviceaccount:{}:{}",
        account.namespace, account.name
    )
    .into()
}

/// Who the sender is, for an addressable of this audience.
pub(crate) async fn authenticate(
    verify: &dyn Verify,
    audience: &str,
    sender: Sender<'_>,
) -> Result<Arc<str>, Answer> {
    let unauthorized = |why: String| refuse(StatusCode::UNAUTHORIZED, why);
    match sender {
        Sender::Stage(Some(account)) => Ok(subject_of(account)),
        Sender::Stage(None) => Err(unauthorized(format!(
            "{audience} takes events with a token only, and the subscription has no identity (status.auth.serviceAccountName)"
        ))),
        Sender::Request(headers) => {
            let token = bearer(headers).ok_or_else(|| {
                unauthorized(format!(
                    "{audience} takes events with a token only: send header Authorization: Bearer TOKEN, a token of audience {audience}"
                ))
            })?;
            verify
                .verify(token, audience)
                .await
                .map_err(|error| match error {
                    VerifyError::Refused(_) => unauthorized(error.to_string()),
                    VerifyError::Unavailable(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error),
                })
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Authenticates and authorises the sender of an event.
pub(crate) async fn check(
    verify: &dyn Verify,
    access: &Access,
    namespace: &str,
    sender: Sender<'_>,
    event: &Event,
) -> Result<(), Answer> {
    let Some(audience) = &access.audience else {
        return Ok(());
    };
    let subject = authenticate(verify, audience, sender).await?;
    authorize(access, namespace, &subject, event).map_err(|why| refuse(StatusCode::FORBIDDEN, why))
}

/// The first policy with a matching subject decides, also when its filters say no.
fn authorize(access: &Access, namespace: &str, subject: &str, event: &Event) -> Result<(), String> {
    if access.policies.is_empty() {
        let own = format!("system:serviceaccount:{namespace}:");
        return match access.default {
            DefaultAccess::AllowAll => Ok(()),
            DefaultAccess::AllowSameNamespace if subject.starts_with(&own) => Ok(()),
            DefaultAccess::AllowSameNamespace => Err(format!(
                "{subject} may not send here: there is no EventPolicy, and default-authorization-mode lets senders of namespace {namespace} only"
            )),
            DefaultAccess::DenyAll => Err(format!(
                "{subject} may not send here: there is no EventPolicy, and default-authorization-mode is deny-all"
            )),
        };
    }
    let policy = access.policies.iter().find(|policy| {
        policy
            .subjects
            .iter()
            .any(|allowed| matches_subject(allowed, subject))
    });
    match policy {
        None => Err(format!(
            "{subject} may not send here: no EventPolicy names it"
        )),
        Some(policy)
            if policy
                .filter
                .as_ref()
                .is_none_or(|filter| filter.matches(event)) =>
        {
            Ok(())
        }
        Some(policy) => Err(format!(
            "{subject} may not send this event here: EventPolicy {} is for others (spec.filters)",
            policy.name
        )),
    }
}

fn matches_subject(allowed: &str, subject: &str) -> bool {
    match allowed.strip_suffix('*') {
        Some(prefix) => subject.starts_with(prefix),
        None => allowed.eq_ignore_ascii_case(subject),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Policy;
    use kinglet_events::Filter;
    use kinglet_events::filter::SubscriptionsApiFilter;

    fn policy(name: &str, subjects: &[&str], exact_type: Option<&str>) -> Policy {
        Policy {
            name: name.into(),
            subjects: subjects.iter().map(|one| Arc::from(*one)).collect(),
            filter: exact_type.map(|kind| {
                let mut filter = SubscriptionsApiFilter::default();
                filter.exact.insert("type".to_owned(), kind.to_owned());
                Arc::new(Filter::compile(None, &[filter], None).0)
            }),
        }
    }

    #[test]
    fn the_first_policy_with_the_subject_decides() {
        use DefaultAccess::{AllowAll, AllowSameNamespace, DenyAll};
        let event = Event::new("1", "/s", "foo").unwrap();
        let own = "system:serviceaccount:ns:a";
        let other = "system:serviceaccount:other:a";
        let foo = || policy("foo", &[own], Some("foo"));
        let bar = || policy("bar", &[own], Some("bar"));
        let all = || policy("all", &["system:serviceaccount:*"], None);
        for (default, policies, subject, allowed) in [
            (AllowAll, vec![], other, true),
            (DenyAll, vec![], own, false),
            (AllowSameNamespace, vec![], own, true),
            (AllowSameNamespace, vec![], other, false),
            (
                AllowSameNamespace,
                vec![],
                "system:serviceaccount:ns2:a",
                false,
            ),
            (AllowAll, vec![foo()], own, true),
            (AllowAll, vec![foo()], "SYSTEM:serviceaccount:ns:A", true),
            (AllowAll, vec![foo()], other, false),
            // No falls through to no later policy.
            (AllowAll, vec![bar(), all()], own, false),
            (AllowAll, vec![bar(), all()], other, true),
            (DenyAll, vec![all()], other, true),
        ] {
            let names: Vec<_> = policies.iter().map(|one| one.name.clone()).collect();
            let access = Access {
                audience: None,
                default,
                policies,
            };
            let verdict = authorize(&access, "ns", subject, &event);
            assert_eq!(
                verdict.is_ok(),
                allowed,
                "{default:?} {names:?} {subject}: {verdict:?}"
            );
        }
    }
}
