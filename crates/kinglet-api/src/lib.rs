//! Knative's kinds as Kinglet uses them, Serving's and Eventing's: types, names, keys, conditions, defaults, rules, ConfigMaps,
//! CRDs; conversion between versions, where a destination leads, when a schedule is due.
//!
//! Flow: a request reaches the API server -> [`admission`] fills in defaults and judges -> the object is
//! stored as JSON -> controllers read it back as the typed kinds here and write typed statuses.
//! Always: no IO and no clock (time comes in as an argument); what is serialized equals what Knative's Go
//! types would write (empty values left out, conditions sorted by type).

#![warn(missing_docs)]

pub mod formats;
pub mod go;
pub mod image_reference;
pub mod label_selector;
pub mod template;
pub mod yaml;

pub mod keys;
pub mod names;

pub mod autoscaling;
pub mod caching;
pub mod conditions;
pub mod duck;
mod kind;
pub mod networking;
pub mod serving;

pub mod eventing;
pub mod flows;
pub mod messaging;
pub mod sinks;
pub mod sources;

pub mod config;
pub mod conversion;
pub mod cron;
pub mod destination;

pub mod admission;
pub mod field;
mod shape;

pub mod builtin_schemas;
pub mod manifests;
