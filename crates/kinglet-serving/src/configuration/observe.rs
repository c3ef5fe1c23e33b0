//! Everything a Configuration's decision depends on, read from caches.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Revision};
use kinglet_reconcile::{Context, is_controlled_by};

use crate::generation_age::GenerationAges;

/// Facts about one Configuration.
#[derive(Clone, Debug)]
pub(super) struct ConfigurationObserved {
    pub(super) configuration: Arc<Configuration>,
    /// Its Revisions, by name.
    pub(super) revisions: Vec<Arc<Revision>>,
    /// The Revision made from the template as it is now.
    pub(super) latest: Latest,
    /// How long a verdict of False about this generation still waits.
    pub(super) hold: Duration,
    pub(super) now: Timestamp,
}

/// Where the Revision of the current template is.
#[derive(Clone, Debug)]
pub(super) enum Latest {
    /// It is there.
    Found(Arc<Revision>),
    /// It must be made.
    Missing,
    /// Its name belongs to another one.
    Taken(String),
}

impl ConfigurationObserved {
    pub(super) fn is_to_create(&self) -> bool {
        matches!(self.latest, Latest::Missing)
    }
}

pub(super) fn observe(
    context: &Context,
    ages: &GenerationAges,
    configuration: Arc<Configuration>,
) -> ConfigurationObserved {
    let cache = context.cache::<Revision>();
    let namespace = configuration.namespace();
    let revisions = cache.select(namespace, [(keys::CONFIGURATION, configuration.name())]);
    let wanted = configuration
        .spec
        .template
        .metadata
        .name
        .as_deref()
        .filter(|name| !name.is_empty());
    let latest = match wanted {
        Some(name) => by_name(&configuration, name, cache.get(namespace, name)),
        None => by_generation(&configuration, &revisions),
    };
    ConfigurationObserved {
        revisions,
        latest,
        hold: ages.hold(
            &*configuration,
            configuration.status.common.observed_generation,
        ),
        now: context.now(),
        configuration,
    }
}

pub(super) fn by_name(
    configuration: &Configuration,
    name: &str,
    found: Option<Arc<Revision>>,
) -> Latest {
    let Some(found) = found else {
        return Latest::Missing;
    };
    let current = generation(&found) == configuration.generation();
    // Going back to an earlier name is fine as long as the template is the same.
    if is_controlled_by(&*found, configuration)
        && (current || found.spec == configuration.spec.template.spec)
    {
        Latest::Found(found)
    } else {
        Latest::Taken(name.to_owned())
    }
}

pub(super) fn by_generation(configuration: &Configuration, revisions: &[Arc<Revision>]) -> Latest {
    let current = revisions
        .iter()
        .find(|revision| generation(revision) == configuration.generation());
    current.map_or(Latest::Missing, |found| Latest::Found(Arc::clone(found)))
}

/// The generation of the Configuration that made a Revision; 0 if it does not say.
pub(super) fn generation(revision: &Revision) -> i64 {
    revision
        .label(keys::CONFIGURATION_GENERATION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}
