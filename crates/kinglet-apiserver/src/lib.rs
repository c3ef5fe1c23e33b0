//! The Kubernetes API over the store, as a tower service. Knows no Knative kind: kinds, defaults and rules arrive as data and functions.
//!
//! Flow: `kube::Client` in this process or a connection of the listener -> **here** (who, what, shape, defaults, admission, rules) -> `store`
//! -> watch streams -> caches and clients.
//!
//! Always: an answer to the listener that says a write happened means it is on disk; our own controllers do not wait for the disk; every change
//! has its own resourceVersion in one order; a watcher that is too slow is told so (410), never fed with gaps; what is not served is refused in words.
//!
//! # Wiring
//!
//! ```ignore
//! let store = Store::open(&data.join("state"), ApiServer::store_options())?;
//! let api = ApiServer::new(store, Options { admission: Some(Arc::new(..)), logs: Some(Arc::new(..)), signer: Some(Arc::new(Signer::from_pem(&pem)?)),
//!     tokens: vec![StaticToken { token, identity: Identity::remote("admin", vec!["system:masters".into()]) }], ..Options::default() });
//! let client = kube::Client::new(api.service(Identity::in_process("system:serviceaccount:knative-serving:controller")), "default");
//! api.install(crd_json).await?;                         // each CRD of config/, at boot: created, or updated where it differs
//! listen::serve(api.clone(), tcp_listener, tls_server_config, tasks.child()).await;   // ends when the tasks are cancelled
//! api.leave_by(node.egress());                          // from then on conversion webhooks are called
//! api.store().close();                                  // last of all: flushes
//! ```
//!
//! `tls_server_config`: ALPN `h2`, `http/1.1`; a client verifier that allows unauthenticated clients (`allow_unauthenticated`), since tokens are
//! accepted as well. Namespaces (`default`, `kube-system`, …) and the Service `default/kubernetes` are made by the root with an ordinary client.

mod accept;
pub mod admission;
mod admit;
pub mod apply;
mod auth;
mod body;
mod builtin;
mod builtin_kind;
mod commit;
mod context;
mod conversion;
mod crd;
mod decode;
mod discovery;
mod dispatch;
mod duplicates;
pub mod field_support;
mod fields;
mod identity;
mod install;
pub mod jsonpath;
mod kinds;
pub mod listen;
mod logs;
mod names;
mod object;
pub mod openapi;
mod options;
mod ownership;
pub mod patch;
mod patching;
mod path;
mod pod_security;
mod present;
mod printer_columns;
pub mod protobuf;
mod quota;
mod read;
mod registry;
mod remove;
mod review;
mod rules;
pub mod schema;
mod selector;
mod server;
mod state;
pub mod status;
mod streams;
mod subresources;
mod table;
mod watch;
mod webhook_client;
mod write;

pub use admission::{AccessQuestion, Admission, AdmissionRequest, Denied, Operation, Rights};
pub use auth::signer::{KeyError, Signer, StaticToken};
pub use body::Body;
pub use conversion::Convert;
pub use identity::{Identity, Origin};
pub use logs::{LogOptions, LogStream, PodLogs};
pub use options::{Entropy, Options, SchemaSource, SyncedWrites, WriteAttributes};
pub use rules::pod::would_refuse as pod_spec_refusals;
pub use server::{ApiServer, ApiService, BODY_BYTES_MAX};
pub use status::Status;
pub use streams::{Connection, Duplex, Input, PodSessions, Session, SessionOptions, Source};
pub use webhook_client::Dial;
