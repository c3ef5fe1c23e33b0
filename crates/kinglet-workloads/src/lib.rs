//! What a cluster would provide for Pods: Deployment, ReplicaSet, Job, binding, endpoints, garbage collection, namespaces.
//!
//! Flow: objects -> **here** -> Pods with a node, EndpointSlices with their addresses; `node` runs the Pods.
//! Each controller observes caches, decides in a pure function and lets `reconcile` write.
//! Always: events and conditions carry Kubernetes' own reasons and words, since Knative's controllers read them.
//! Absent: Knative kinds, containers, and any idea of where the API server is. On a cluster, where
//! kube-controller-manager does all this, only the binder is switched on.

#![cfg_attr(
    test,
    allow(
        clippy::needless_pass_by_value,
        reason = "rows of a test table read best as values"
    )
)]

mod binder;
mod deployment;
mod endpoints;
mod garbage;
mod job;
mod namespace;
mod pods;
mod replicaset;
mod selectors;
mod taints;
mod time;

use std::sync::Arc;

use kinglet_reconcile::Context;

pub use binder::Capacity;

/// Which controllers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Deployments, ReplicaSets and Jobs.
    pub deployments: bool,
    /// Endpoints and EndpointSlices.
    pub endpoints: bool,
    /// Dependants of deleted owners; foreground and orphan deletion.
    pub garbage: bool,
    /// Emptying of deleted namespaces; default ServiceAccount and CA of new ones.
    pub namespaces: bool,
    /// Binding of Pods to the node.
    pub binder: bool,
    /// Deletion of Pods that do not tolerate a NoExecute taint of their node.
    pub taints: bool,
}

impl Parts {
    /// Everything: the standalone shape.
    pub const ALL: Self = Self {
        deployments: true,
        endpoints: true,
        garbage: true,
        namespaces: true,
        binder: true,
        taints: true,
    };
    /// Only the binder: kube-controller-manager does the rest.
    pub const BINDER: Self = Self {
        deployments: false,
        endpoints: false,
        garbage: false,
        namespaces: false,
        binder: true,
        taints: false,
    };
}

/// What the controllers need to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node that Pods are bound to.
    pub node_name: String,
    /// What the node gives, while its Node object does not say.
    pub capacity: Capacity,
    /// The API server's CA for `kube-root-ca.crt`; without it there is no such ConfigMap.
    pub root_ca_pem: Option<String>,
    /// Which controllers run.
    pub parts: Parts,
}

/// Starts the controllers as tasks of the context.
pub fn run(context: &Context, options: Options) {
    let Options {
        node_name,
        capacity,
        root_ca_pem,
        parts,
    } = options;
    if parts.deployments {
        deployment::start(context);
        replicaset::start(context);
        job::start(context);
    }
    if parts.binder {
        binder::start(context, node_name, capacity);
    }
    if parts.taints {
        taints::start(context);
    }
    if parts.endpoints {
        endpoints::start(context);
    }
    if !parts.garbage && !parts.namespaces {
        return;
    }
    let kinds = kinglet_reconcile::kinds::discover(context);
    let mut gone: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(|_| {});
    if parts.namespaces {
        namespace::start_defaults(context, root_ca_pem);
        let controller = namespace::lifecycle();
        gone = Arc::new(namespace::wake(context, controller.queue()));
        let kinds = kinds.clone();
        controller.run(context, move |context, key| {
            namespace::empty(context, kinds.clone(), key)
        });
    }
    if parts.garbage {
        garbage::start(context, &kinds, move |namespace| gone(namespace));
    }
}
