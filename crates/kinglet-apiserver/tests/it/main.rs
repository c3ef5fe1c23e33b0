//! The API server from outside, over the in-process service and over TLS.

#![expect(
    clippy::disallowed_methods,
    reason = "tests spawn peers, measure real time and read where to find programs"
)]
#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod bounds;
mod counts;
mod custom;
mod delete;
mod jobs;
mod listening;
mod objects;
mod reading;
mod rights;
mod security;
mod sessions;
mod test_server;
mod versions;
mod watching;
mod webhooks;
mod words;
