//! What a dead letter says about its failure: three extensions of the event (spec/eventing.md 7.6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::event::{Event, ExtensionName, InvalidAttribute, Value};

/// Extension `knativeerrordest`: the address that failed.
pub static ERROR_DESTINATION: ExtensionName = ExtensionName::from_static("ce-knativeerrordest");
/// Extension `knativeerrorcode`: the status, 500 when there was none.
pub static ERROR_CODE: ExtensionName = ExtensionName::from_static("ce-knativeerrorcode");
/// Extension `knativeerrordata`: the beginning of the answer's body, in base64.
pub static ERROR_DATA: ExtensionName = ExtensionName::from_static("ce-knativeerrordata");

/// Characters of `knativeerrordata`.
pub const ERROR_DATA_CHARACTERS_MAX: usize = 1024;
/// What they hold.
const ERROR_DATA_BYTES_MAX: usize = ERROR_DATA_CHARACTERS_MAX / 4 * 3;
/// The status in place of one that never came.
const NO_STATUS: i32 = 500;

/// Sets the error extensions. `status` is absent when nothing answered; then `body` is the reason, `dispatch error: …`.
/// The data is there, and empty, for an empty body.
pub fn annotate(
    event: &mut Event,
    destination: &str,
    status: Option<u16>,
    body: &[u8],
) -> Result<(), InvalidAttribute> {
    let code = status.map_or(NO_STATUS, i32::from);
    // Upstream encodes all of a larger body into a shorter buffer, and panics.
    let data = STANDARD.encode(&body[..body.len().min(ERROR_DATA_BYTES_MAX)]);
    event.set_extension(ERROR_DESTINATION.clone(), destination.into())?;
    event.set_extension(ERROR_CODE.clone(), Value::Integer(code))?;
    event.set_extension(ERROR_DATA.clone(), data.as_str().into())
}

/// The body with which a Broker's filter answers for a subscriber that failed, so that the channel before it can name the
/// subscriber in the dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterAnswer {
    /// The subscriber.
    #[serde(rename = "errdestination")]
    pub destination: String,
    /// What it answered with, in base64.
    #[serde(rename = "errresponsebody")]
    body: String,
}

impl FilterAnswer {
    /// Of a subscriber and its answer.
    pub fn new(destination: &str, body: &[u8]) -> Self {
        Self {
            destination: destination.to_owned(),
            body: STANDARD.encode(body),
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("two strings are JSON")
    }

    /// Reads one. With `None` a dead letter gets no error extensions, as in Knative: the filter itself failed, or did not
    /// answer in time.
    pub fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// What the subscriber answered with.
    pub fn body(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.body).ok()
    }
}
