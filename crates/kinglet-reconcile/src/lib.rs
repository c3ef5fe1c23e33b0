//! Reconciling: shared caches, the work queue, the one place that writes, events.
//!
//! Flow: watch -> [`Cache`] -> key in a [`Queue`] -> reconciler: observe (caches) -> decide (pure) -> [`Plan`] ->
//! [`Context::apply`] -> API server; its answer is in the cache at once.
//! Always: one watch per kind and process, one copy of each object; a cached object never grows older; a stale plan loses
//! on its version; a write keeps the fields that our types do not know; a key is worked on by one worker at a time, and
//! only while this process leads its bucket; nothing here polls.
//! Absent: knowledge of any particular kind, and of whether the client leads to a socket or into this process.
//!
//! A complete controller:
//!
//! ```no_run
//! use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
//! use kinglet_reconcile::{Caches, Controller, ReconcileError, Key, Context, Next, Plan, name_of, owner_reference};
//!
//! /// Every namespace has a ConfigMap with its name inside.
//! async fn reconcile(context: Context, key: Key) -> Result<Next, ReconcileError> {
//!     let Some(namespace) = context.cache::<Namespace>().find(&key) else { return Ok(Next::Done) };
//!     let present = context.cache::<ConfigMap>().get(&key.name, "about");
//!     context.apply(decide(&namespace, present.as_deref())).await
//! }
//!
//! fn decide(namespace: &Namespace, present: Option<&ConfigMap>) -> Plan {
//!     let mut desired = present.cloned().unwrap_or_default();
//!     desired.metadata.name = Some("about".to_owned());
//!     desired.metadata.namespace = Some(name_of(namespace).to_owned());
//!     desired.metadata.owner_references = Some(vec![owner_reference(namespace)]);
//!     desired.data = Some([("name".to_owned(), name_of(namespace).to_owned())].into());
//!     let mut plan = Plan::new();
//!     plan.ensure(present, &desired);
//!     plan
//! }
//!
//! # fn start(client: kube::Client, tasks: kinglet_process::Tasks, clock: kinglet_process::clock::Clock) {
//! let context = Context::new(&Caches::new(client, tasks, clock));
//! Controller::<Namespace>::new("about-controller")
//!     .watches::<ConfigMap, _>(|map| Some(Key::new("", map.metadata.namespace.as_deref()?)))
//!     .run(&context, reconcile);
//! # }
//! ```

#![warn(missing_docs)]

pub mod backlog;
pub mod buckets;
pub mod cache;
pub mod caches;
pub mod context;
pub mod controller;
pub mod error;
pub mod event;
mod events;
pub mod feed;
pub mod gate;
mod graft;
pub mod kinds;
pub mod leader;
pub mod object;
pub mod plan;
pub mod pod;
pub mod queue;
mod send;
mod warnings;
mod wire;
pub mod write;

pub use backlog::{Backlog, Turn};
pub use buckets::{Buckets, LeaseTiming};
pub use cache::{
    Cache, Change, Changes, DynamicCache, DynamicObject, Head, Index, KindMemory, Owner, Selector,
};
pub use caches::{Caches, Scope};
pub use context::Context;
pub use controller::Controller;
pub use error::ReconcileError;
pub use event::{EventRecord, Severity, reference_to};
pub use gate::{Gate, GateOpener};
pub use kinds::{ResourceKind, ResourceKinds};
pub use leader::Leadership;
pub use object::{
    Key, Object, annotation, controller_of, is_controlled_by, is_deleting, key_of, label, name_of,
    namespace_of, owner_reference, refers_to, uid_of, version_of,
};
pub use plan::{Next, Plan, Step};
pub use queue::Queue;
pub use write::{Cascade, Verb, Write};
