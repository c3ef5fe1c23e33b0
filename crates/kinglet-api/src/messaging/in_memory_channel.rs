//! InMemoryChannel: keeps events in memory until they are delivered.

use crate::duck::{ChannelableSpec, ChannelableStatus};
use crate::kind::kind;

kind!(
    /// Keeps events in memory until they are delivered.
    InMemoryChannel, "inmemorychannels", "messaging.knative.dev", "v1", ChannelableSpec, ChannelableStatus
);
