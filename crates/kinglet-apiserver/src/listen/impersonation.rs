//! Impersonation (`kubectl --as`): a user who has the right acts as another one.

use std::sync::Arc;

use http::HeaderMap;

use crate::auth::rights;
use crate::identity::{ANONYMOUS, Identity, SharedIdentity};
use crate::path::RequestInfo;
use crate::state::ServerState;
use crate::status::Status;

/// Group of the attributes of users.
const AUTHENTICATION: &str = "authentication.k8s.io";
/// What a header of a further attribute begins with; its key follows.
const EXTRA: &str = "impersonate-extra-";

/// The user that a request asks to be taken for.
struct Impersonated {
    user: String,
    uids: Vec<String>,
    groups: Vec<String>,
    /// Keys and values of further attributes.
    extras: Vec<(String, String)>,
}

/// Returns the user that the request acts as: its own, or the one that it asks for and may be.
pub(super) fn impersonate(
    server: &ServerState,
    user: SharedIdentity,
    headers: &HeaderMap,
) -> Result<SharedIdentity, Status> {
    let Some(wanted) = Impersonated::read(headers)? else {
        return Ok(user);
    };
    wanted.check(server, &user)?;
    Ok(Arc::new(wanted.identity()))
}

impl Impersonated {
    fn read(headers: &HeaderMap) -> Result<Option<Self>, Status> {
        // A name that cannot be read must not be taken for none: the request would be made with the caller's own rights.
        let unreadable = headers.iter().any(|(name, value)| {
            name.as_str().starts_with("impersonate-")
                && std::str::from_utf8(value.as_bytes()).is_err()
        });
        if unreadable {
            return Err(Status::bad_request(
                "a header of impersonation is not UTF-8",
            ));
        }
        let all = |name: &str| -> Vec<String> {
            headers
                .get_all(name)
                .iter()
                .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
                .map(str::to_owned)
                .collect()
        };
        let (users, groups) = (all("impersonate-user"), all("impersonate-group"));
        let others = headers
            .keys()
            .any(|name| name == "impersonate-uid" || name.as_str().starts_with(EXTRA));
        if users.is_empty() && groups.is_empty() && !others {
            return Ok(None);
        }
        let Some(user) = users.into_iter().next() else {
            return Err(Status::bad_request(
                "requested impersonation of groups, uid or extra without impersonating a user",
            ));
        };
        let mut extras = Vec::new();
        for name in headers.keys() {
            if let Some(key) = name.as_str().strip_prefix(EXTRA) {
                let key = crate::path::decode(key).into_owned();
                extras.extend(
                    all(name.as_str())
                        .into_iter()
                        .map(|value| (key.clone(), value)),
                );
            }
        }
        Ok(Some(Self {
            user,
            uids: all("impersonate-uid"),
            groups,
            extras,
        }))
    }

    /// Returns namespace and name of the ServiceAccount that the user is.
    fn account(&self) -> Option<(&str, &str)> {
        self.user
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'))
    }

    /// Checks the right of the caller to each attribute.
    fn check(&self, server: &ServerState, caller: &Identity) -> Result<(), Status> {
        let check = |info: &RequestInfo| rights::check(server, caller, "impersonate", info);
        let target = |resource: &str, namespace: &str, name: &str| RequestInfo {
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..RequestInfo::default()
        };
        match self.account() {
            Some((namespace, account)) => check(&target("serviceaccounts", namespace, account))?,
            None => check(&target("users", "", &self.user))?,
        }
        for uid in &self.uids {
            let mut info = target("uids", "", uid);
            info.group = AUTHENTICATION.to_owned();
            check(&info)?;
        }
        // RBAC decides nothing by further attributes; a caller without the right to them is refused nevertheless.
        for (key, value) in &self.extras {
            let mut info = target("userextras", "", value);
            info.group = AUTHENTICATION.to_owned();
            info.subresource.clone_from(key);
            check(&info)?;
        }
        for group in &self.groups {
            check(&target("groups", "", group))?;
        }
        Ok(())
    }

    fn identity(self) -> Identity {
        let groups = match self.account() {
            Some((namespace, _)) if self.groups.is_empty() => vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ],
            _ => self.groups,
        };
        if self.user == ANONYMOUS && groups.is_empty() {
            return Identity::anonymous();
        }
        let mut identity = Identity::remote(&self.user, groups);
        identity.uid = self.uids.into_iter().next().unwrap_or_default();
        identity
    }
}
