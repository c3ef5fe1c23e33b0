//! Answers of the HTTP stages: Knative's status, and why in the body.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kinglet_decide::call::CallBody;

/// An answer that is there as a whole.
pub(crate) type Answer = http::Response<Bytes>;

/// Nothing but a status.
pub(crate) fn status(status: StatusCode) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = status;
    answer
}

/// A refusal with its reason.
pub(crate) fn refuse(code: StatusCode, why: impl std::fmt::Display) -> Answer {
    let mut answer = status(code);
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    *answer.body_mut() = format!("{why}\n").into();
    answer
}

/// Says which methods there are.
pub(crate) fn allow(mut answer: Answer, methods: &'static str) -> Answer {
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

/// For the other side of the seam.
pub(crate) fn streamed(answer: Answer) -> http::Response<CallBody> {
    answer.map(|body| {
        let body: CallBody = Box::pin(Full::new(body).map_err(|never| match never {}));
        body
    })
}
