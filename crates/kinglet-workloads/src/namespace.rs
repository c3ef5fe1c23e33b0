//! Namespaces: what each one has from the start, and emptying those that are deleted.

use std::collections::BTreeMap;

use http::Method;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, NamespaceCondition, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kinglet_reconcile::{
    Context, Controller, Key, Next, Plan, Queue, ReconcileError, ResourceKind, ResourceKinds,
};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// ConfigMap with the certificate of the API server.
const ROOT_CA: &str = "kube-root-ca.crt";
/// Kubernetes' own words about it.
const ROOT_CA_NOTE: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
/// How soon a namespace that is not yet empty is looked at again if nothing wakes it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Starts what gives each namespace its ServiceAccount and, if there is one, the CA.
pub(crate) fn start_defaults(context: &Context, root_ca_pem: Option<String>) {
    let in_namespace =
        |namespace: Option<&String>| namespace.map(|namespace| Key::new("", namespace.as_str()));
    Controller::<Namespace>::new("serviceaccount-controller")
        .watches::<ServiceAccount, _>(move |account| {
            in_namespace(account.metadata.namespace.as_ref())
        })
        .watches::<ConfigMap, _>(move |map| {
            in_namespace(map.metadata.namespace.as_ref())
                .filter(|_| map.metadata.name.as_deref() == Some(ROOT_CA))
        })
        .run(context, move |context, key| {
            defaults(context, key, root_ca_pem.clone())
        });
}

async fn defaults(
    context: Context,
    key: Key,
    root_ca_pem: Option<String>,
) -> Result<Next, ReconcileError> {
    let Some(namespace) = context.cache::<Namespace>().find(&key) else {
        return Ok(Next::Done);
    };
    if namespace.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    let account = context.cache::<ServiceAccount>().get(&key.name, "default");
    let map = context.cache::<ConfigMap>().get(&key.name, ROOT_CA);
    let plan = decide_defaults(
        &key.name,
        account.as_deref(),
        map.as_deref(),
        root_ca_pem.as_deref(),
    );
    match context.apply(plan).await {
        // The namespace is going away at this moment.
        Err(ReconcileError::Refused { message, .. }) if message.contains("being terminated") => {
            Ok(Next::Done)
        }
        other => other,
    }
}

fn decide_defaults(
    namespace: &str,
    account: Option<&ServiceAccount>,
    map: Option<&ConfigMap>,
    root_ca_pem: Option<&str>,
) -> Plan {
    let metadata = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    let mut plan = Plan::new();
    if account.is_none() {
        plan.create(&ServiceAccount {
            metadata: metadata("default"),
            ..ServiceAccount::default()
        });
    }
    if let Some(pem) = root_ca_pem {
        let mut desired = map.cloned().unwrap_or_else(|| ConfigMap {
            metadata: metadata(ROOT_CA),
            ..ConfigMap::default()
        });
        desired.data = Some([("ca.crt".to_owned(), pem.to_owned())].into());
        let description = [(
            "kubernetes.io/description".to_owned(),
            ROOT_CA_NOTE.to_owned(),
        )];
        desired
            .metadata
            .annotations
            .get_or_insert_default()
            .extend(description);
        plan.ensure(map, &desired);
    }
    plan
}

/// Makes the controller that empties namespaces under deletion; its queue is woken when something in one disappears.
pub(crate) fn lifecycle() -> Controller<Namespace> {
    Controller::only("namespace-controller", |namespace: &Namespace| {
        namespace.metadata.deletion_timestamp.is_some()
    })
}

/// Wakes a namespace under deletion when an object in it is gone.
pub(crate) fn wake(context: &Context, queue: Queue) -> impl Fn(&str) + Send + Sync + 'static {
    let namespaces = context.cache::<Namespace>();
    move |name| {
        if namespaces
            .get("", name)
            .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
        {
            queue.add(Key::new("", name));
        }
    }
}

/// Deletes everything in a namespace under deletion, then lets it go.
pub(crate) async fn empty(
    context: Context,
    kinds: ResourceKinds,
    key: Key,
) -> Result<Next, ReconcileError> {
    let Some(namespace) = context.cache::<Namespace>().find(&key) else {
        return Ok(Next::Done);
    };
    let held = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_ref())
        .is_some_and(|all| all.iter().any(|f| f == "kubernetes"));
    if namespace.metadata.deletion_timestamp.is_none() || !held {
        return Ok(Next::Done);
    }
    let all = kinds.all();
    if all.is_empty() {
        return Ok(Next::After(LOOK_AGAIN));
    }
    let mut left = BTreeMap::new();
    for kind in all.iter().filter(|kind| kind.namespaced) {
        let count = remove_all(&context, kind, &key.name).await?;
        if count > 0 {
            left.insert(resource_name(kind), count);
        }
    }
    if left.is_empty() {
        return finalize(&context, &namespace, &key).await;
    }
    let mut plan = Plan::new();
    let mut status = namespace.status.clone().unwrap_or_default();
    status.phase = Some("Terminating".to_owned());
    status.conditions = Some(vec![remaining(&namespace, &left, context.now())]);
    plan.status(&*namespace, &status).after(LOOK_AGAIN);
    context.apply(plan).await
}

fn resource_name(kind: &ResourceKind) -> String {
    if kind.group.is_empty() {
        format!("{}.", kind.plural)
    } else {
        format!("{}.{}", kind.plural, kind.group)
    }
}

fn remaining(
    namespace: &Namespace,
    left: &BTreeMap<String, usize>,
    now: jiff::Timestamp,
) -> NamespaceCondition {
    let listed: Vec<String> = left
        .iter()
        .map(|(name, count)| format!("{name} has {count} resource instances"))
        .collect();
    let message = format!("Some resources are remaining: {}", listed.join(", "));
    let known = namespace
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    let since = known
        .filter(|known| known.type_ == "NamespaceContentRemaining")
        .find_map(|known| known.last_transition_time.clone());
    NamespaceCondition {
        type_: "NamespaceContentRemaining".to_owned(),
        status: "True".to_owned(),
        reason: Some("SomeResourcesRemain".to_owned()),
        message: Some(message),
        last_transition_time: Some(since.unwrap_or(Time(crate::time::whole_seconds(now)))),
    }
}

/// Objects of one page while a namespace is emptied.
const PAGE: usize = 500;

#[derive(Deserialize)]
struct Listed {
    items: Option<Vec<Item>>,
    metadata: ListedMeta,
}

#[derive(Deserialize)]
struct Item {
    metadata: ItemMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemMeta {
    name: String,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct ListedMeta {
    #[serde(rename = "remainingItemCount", default)]
    more: usize,
}

impl Listed {
    fn count(&self) -> usize {
        self.items.as_ref().map_or(0, Vec::len) + self.metadata.more
    }
}

/// Asks for the deletion of all objects of a kind; gives how many are still there.
async fn remove_all(
    context: &Context,
    kind: &ResourceKind,
    namespace: &str,
) -> Result<usize, ReconcileError> {
    let path = kind.path(Some(namespace));
    let Some(listed) = list(context, &path)
        .await?
        .filter(|listed| listed.count() > 0)
    else {
        return Ok(0);
    };
    let options =
        json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
    let all_at_once = kind.delete_collection
        && match context.call(Method::DELETE, &path, Some(&options)).await {
            // Some kinds are offered that way and yet refused.
            Err(ReconcileError::Refused { code: 405, .. }) => false,
            answer => gone_is_fine(answer).map(|()| true)?,
        };
    if !all_at_once {
        let alive = listed
            .items
            .iter()
            .flatten()
            .filter(|item| item.metadata.deletion_timestamp.is_none());
        for item in alive {
            gone_is_fine(
                context
                    .call(
                        Method::DELETE,
                        &format!("{path}/{}", item.metadata.name),
                        Some(&options),
                    )
                    .await,
            )?;
        }
    }
    Ok(list(context, &path)
        .await?
        .map_or(0, |listed| listed.count()))
}

/// One page of what there is, or nothing when the kind has just been removed.
async fn list(context: &Context, path: &str) -> Result<Option<Listed>, ReconcileError> {
    let listing = format!("{path}?limit={PAGE}");
    match context.call(Method::GET, &listing, None).await {
        Ok(answer) => {
            let attempt = format!("listing {listing}");
            serde_json::from_slice(&answer)
                .map(Some)
                .map_err(|source| ReconcileError::Garbled { attempt, source })
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn gone_is_fine(answer: Result<bytes::Bytes, ReconcileError>) -> Result<(), ReconcileError> {
    match answer {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}

async fn finalize(
    context: &Context,
    namespace: &Namespace,
    key: &Key,
) -> Result<Next, ReconcileError> {
    let mut body = namespace.clone();
    let spec = body.spec.get_or_insert_default();
    spec.finalizers = spec.finalizers.take().map(|all| {
        all.into_iter()
            .filter(|known| known != "kubernetes")
            .collect()
    });
    let body = serde_json::to_value(&body).map_err(|source| ReconcileError::Garbled {
        attempt: "writing a namespace".to_owned(),
        source,
    })?;
    gone_is_fine(
        context
            .call(
                Method::PUT,
                &format!("/api/v1/namespaces/{}/finalize", key.name),
                Some(&body),
            )
            .await,
    )?;
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_gets_what_it_lacks_once() {
        let first = decide_defaults("a", None, None, Some("PEM"));
        let kinds: Vec<_> = first.writes().map(|write| write.kind.as_str()).collect();
        assert_eq!(kinds, ["ServiceAccount", "ConfigMap"]);
        let account: ServiceAccount =
            serde_json::from_value(first.writes().next().unwrap().body.clone()).unwrap();
        let map: ConfigMap =
            serde_json::from_value(first.writes().nth(1).unwrap().body.clone()).unwrap();
        let second = decide_defaults("a", Some(&account), Some(&map), Some("PEM"));
        assert!(
            second
                .writes()
                .all(kinglet_reconcile::Write::changes_nothing)
        );
        assert!(
            !decide_defaults("a", Some(&account), Some(&map), Some("NEW"))
                .writes()
                .next()
                .unwrap()
                .changes_nothing()
        );
    }
}
