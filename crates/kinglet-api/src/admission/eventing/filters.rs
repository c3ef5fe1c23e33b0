//! Filters of Triggers, ApiServerSources and EventPolicies, as `kinglet-events` judges them.

use kinglet_events::filter::{self, SubscriptionsApiFilter, TriggerFilter};
use serde_json::Value;

use crate::admission::look;
use crate::field::Findings;

/// Judges `filter` and `filters` of a spec.
pub(super) fn validate(spec: &Value) -> Findings {
    let old: Option<TriggerFilter> = read(look::at(spec, "filter"));
    let filters: Vec<SubscriptionsApiFilter> = read(look::at(spec, "filters")).unwrap_or_default();
    filter::validate(old.as_ref(), &filters)
        .into_iter()
        .map(|refusal| {
            let found = if refusal.path.is_empty() {
                Findings::general(refusal.message)
            } else {
                Findings::error(refusal.message, &refusal.path)
            };
            found.details(refusal.details)
        })
        .collect()
}

/// The shape of a spec was read before; what does not fit was refused then.
fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}
