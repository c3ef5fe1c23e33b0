//! `Hello $TARGET!`

use http::StatusCode;

use crate::serve::{Answer, Request, text};

pub(crate) fn answer(_request: &Request) -> Answer {
    let target = std::env::var("TARGET")
        .ok()
        .filter(|target| !target.is_empty())
        .unwrap_or_else(|| "World".to_owned());
    text(StatusCode::OK, format!("Hello {target}!\n"))
}
