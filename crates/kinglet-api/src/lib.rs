//! Knative's kinds as Kinglet uses them: types, names, keys, conditions, defaults, rules, ConfigMaps, CRDs.
//!
//! Flow: a request reaches the API server -> [`admission`] fills in defaults and judges -> the object is
//! stored as JSON -> controllers read it back as the typed kinds here and write typed statuses.
//! Always: no IO and no clock (time comes in as an argument); what is serialized equals what Knative's Go
//! types would write (empty values left out, conditions sorted by type).

pub mod go;
pub mod quantity;
pub mod formats;
pub mod image_reference;
pub mod template;
pub mod yaml;

pub mod names;
pub mod keys;

mod kind;
pub mod duck;
pub mod conditions;
pub mod serving;
pub mod autoscaling;
pub mod networking;
pub mod caching;

pub mod config;

pub mod field;
mod shape;
pub mod admission;

pub mod builtin_schemas;
pub mod manifests;
