//! The API server from outside, over the in-process service and over TLS.

mod custom;
mod delete;
mod kit;
mod listening;
mod objects;
mod reading;
mod watching;
