//! Everything a Channel's decision depends on.

use std::sync::Arc;

use jiff::Timestamp;
use kinglet_api::config::eventing::EventingConfigs;
use kinglet_api::messaging::{Channel, ChannelTemplate};
use kinglet_reconcile::{Context, key_of};

use crate::EventingOptions;
use crate::backing::Backing;
use crate::targets::Targets;

/// Facts about one Channel.
#[derive(Clone, Debug)]
pub(super) struct ChannelObserved {
    pub(super) channel: Arc<Channel>,
    /// Its template and the channel behind it; nothing for a Channel that has none.
    pub(super) backing: Option<(ChannelTemplate, Backing)>,
    pub(super) configs: Arc<EventingConfigs>,
    pub(super) now: Timestamp,
}

pub(super) async fn observe(
    context: &Context,
    options: &EventingOptions,
    targets: &Targets,
    channel: Arc<Channel>,
) -> ChannelObserved {
    let mut look = targets.look(&key_of(&*channel));
    let backing = match channel.spec.channel_template.clone() {
        Some(template) => {
            let (namespace, name) = (channel.namespace(), channel.name());
            let backing = Backing::observe(&mut look, &template, namespace, name).await;
            Some((template, backing))
        }
        None => None,
    };
    look.finish();
    ChannelObserved {
        channel,
        backing,
        configs: options.configs.get(),
        now: context.now(),
    }
}
