//! Rules about autoscaling annotations (spec/serving.md 2.6).

use std::collections::BTreeMap;

use crate::config::Autoscaler;
use crate::field::Findings;
use crate::go::{self, GoDuration};
use crate::keys::{self, Priority};

type Annotations = BTreeMap<String, String>;

const INT_MAX: i64 = i32::MAX as i64;

/// Findings carry the annotation's key as their path.
pub(super) fn validate(annotations: &Annotations, config: &Autoscaler) -> Findings {
    if !annotations
        .keys()
        .any(|key| key.starts_with(keys::AUTOSCALING_PREFIX))
    {
        return Findings::none();
    }
    let mut found = class(annotations);
    found.add(bounds(annotations, config));
    found.add(initial_scale(annotations, config));
    found.add(metric(annotations, config));
    found.add(float(annotations, keys::TARGET, |value, text, key| {
        (value < 0.01)
            .then(|| Findings::error(format!("target {text} should be at least 0.01"), key))
    }));
    found.add(percentage(
        annotations,
        keys::TARGET_UTILIZATION_PERCENTAGE,
        1.0,
        100.0,
    ));
    found.add(percentage(
        annotations,
        keys::PANIC_WINDOW_PERCENTAGE,
        1.0,
        100.0,
    ));
    found.add(percentage(
        annotations,
        keys::PANIC_THRESHOLD_PERCENTAGE,
        110.0,
        1000.0,
    ));
    found.add(float(
        annotations,
        keys::TARGET_BURST_CAPACITY,
        |value, text, key| (value < 0.0 && value != -1.0).then(|| Findings::invalid(text, key)),
    ));
    let (six, hour) = (GoDuration::from_secs(6), GoDuration::from_secs(3600));
    found.add(window(annotations, keys::WINDOW, "6s", six, hour, true));
    found.add(window(
        annotations,
        keys::SCALE_TO_ZERO_POD_RETENTION_PERIOD,
        "0s",
        GoDuration(0),
        hour,
        false,
    ));
    found.add(window(
        annotations,
        keys::SCALE_DOWN_DELAY,
        "0s",
        GoDuration(0),
        hour,
        true,
    ));
    found.add(algorithm(annotations));
    found
}

fn class(annotations: &Annotations) -> Findings {
    match annotations.get(keys::AUTOSCALING_CLASS) {
        Some(class)
            if class.ends_with(".knative.dev")
                && ![keys::AUTOSCALING_CLASS_KPA, keys::AUTOSCALING_CLASS_HPA]
                    .contains(&class.as_str()) =>
        {
            Findings::invalid(class, keys::AUTOSCALING_CLASS)
        }
        _ => Findings::none(),
    }
}

/// A count of pods: at least zero.
fn count(annotations: &Annotations, key: Priority) -> Result<Option<i64>, Findings> {
    let Some((key, text)) = key.find(annotations) else {
        return Ok(None);
    };
    match go::parse_int(text, 32) {
        Ok(value) if value >= 0 => Ok(Some(value)),
        Err(error) if !error.ends_with("out of range") => Err(Findings::invalid(text, key)),
        _ => Err(Findings::out_of_bounds(text, 0, INT_MAX, key)),
    }
}

fn bounds(annotations: &Annotations, config: &Autoscaler) -> Findings {
    let mut found = Findings::none();
    let mut read = |key| {
        count(annotations, key).unwrap_or_else(|wrong| {
            found.add(wrong);
            None
        })
    };
    let (min, max, activation) = (
        read(keys::MIN_SCALE),
        read(keys::MAX_SCALE),
        read(keys::ACTIVATION_SCALE),
    );
    let (least, most) = (min.unwrap_or(0), max.unwrap_or(0));
    if max.is_some_and(|max| max != 0 && max < least) {
        for key in [keys::MAX_SCALE, keys::MIN_SCALE] {
            found.add(Findings::error(
                format!("max-scale={most} is less than min-scale={least}"),
                key.canonical(),
            ));
        }
    }
    let limit = i64::from(config.max_scale_limit);
    if let Some(max) = max.filter(|_| limit > 0) {
        if max > limit {
            found.add(Findings::out_of_bounds(
                max,
                1,
                limit,
                keys::MAX_SCALE.canonical(),
            ));
        } else if max == 0 {
            let message = format!("max-scale=0 (unlimited), must be less than {limit}");
            found.add(Findings::error(message, keys::MAX_SCALE.canonical()));
        }
    }
    if let Some(activation) = activation {
        let key = keys::ACTIVATION_SCALE.canonical();
        if activation < 2 {
            found.add(Findings::error(
                format!("activation-scale={activation} must be greater than 1"),
                key,
            ));
        } else if activation < least {
            found.add(Findings::error(
                format!("activation-scale={activation} is less than min-scale={least}"),
                key,
            ));
        } else if most != 0 && activation > most {
            found.add(Findings::error(
                format!("activation-scale={activation} is greater than max-scale={most}"),
                key,
            ));
        }
    }
    found
}

fn initial_scale(annotations: &Annotations, config: &Autoscaler) -> Findings {
    let Some((key, text)) = keys::INITIAL_SCALE.find(annotations) else {
        return Findings::none();
    };
    match go::parse_int(text, 32) {
        Err(_) => Findings::invalid(text, key),
        Ok(value) if value < 0 => Findings::invalid(text, &format!("{key} must be greater than 0")),
        Ok(0) if !config.allow_zero_initial_scale => {
            Findings::invalid(text, &format!("{key}=0 not allowed by cluster"))
        }
        Ok(_) => Findings::none(),
    }
}

fn metric(annotations: &Annotations, config: &Autoscaler) -> Findings {
    let Some(metric) = annotations.get(keys::AUTOSCALING_METRIC) else {
        return Findings::none();
    };
    let class = annotations
        .get(keys::AUTOSCALING_CLASS)
        .unwrap_or(&config.pod_autoscaler_class);
    let good = match class.as_str() {
        keys::AUTOSCALING_CLASS_KPA => ["concurrency", "rps"].contains(&metric.as_str()),
        keys::AUTOSCALING_CLASS_HPA => !metric.is_empty(),
        _ => true,
    };
    if good {
        Findings::none()
    } else {
        Findings::invalid(metric, keys::AUTOSCALING_METRIC)
    }
}

fn float(
    annotations: &Annotations,
    key: Priority,
    rule: impl Fn(f64, &str, &str) -> Option<Findings>,
) -> Findings {
    let Some((key, text)) = key.find(annotations) else {
        return Findings::none();
    };
    match go::parse_float(text) {
        Ok(value) => rule(value, text, key).unwrap_or_default(),
        Err(_) => Findings::invalid(text, key),
    }
}

fn percentage(annotations: &Annotations, key: Priority, lower: f64, upper: f64) -> Findings {
    float(annotations, key, |value, text, key| {
        (!(lower..=upper).contains(&value))
            .then(|| Findings::out_of_bounds(text, lower, upper, key))
    })
}

fn window(
    annotations: &Annotations,
    key: Priority,
    low: &str,
    from: GoDuration,
    to: GoDuration,
    whole: bool,
) -> Findings {
    let Some((key, text)) = key.find(annotations) else {
        return Findings::none();
    };
    match GoDuration::parse(text) {
        Err(_) => Findings::invalid(text, key),
        Ok(window) if !(from..=to).contains(&window) => Findings::out_of_bounds(text, low, to, key),
        Ok(window) if whole && !window.is_whole_seconds() => {
            Findings::error("must be specified with at most second precision", key)
        }
        Ok(_) => Findings::none(),
    }
}

fn algorithm(annotations: &Annotations) -> Findings {
    if annotations
        .get(keys::AUTOSCALING_CLASS)
        .is_none_or(|class| class != keys::AUTOSCALING_CLASS_KPA)
    {
        return Findings::none();
    }
    match keys::METRIC_AGGREGATION_ALGORITHM.find(annotations) {
        Some((key, value))
            if !["", "linear", "weighted-exponential", "weightedExponential"].contains(&value) =>
        {
            Findings::invalid(value, key)
        }
        _ => Findings::none(),
    }
}
