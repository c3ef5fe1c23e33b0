//! Gradual rollout: how much of a Configuration's share the newest Revision has by now.
//!
//! The state is an annotation of the Ingress, so that a restart goes on where it was. Pure: time comes in.

use kinglet_api::serving::Route;
use serde::{Deserialize, Serialize};

use super::traffic::Traffic;

const SECOND_NS: i64 = 1_000_000_000;

/// The whole state, sorted by tag, then by Configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rollout {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) configurations: Vec<Entry>,
}

/// One Configuration's share within one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) configuration_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) tag: String,
    pub(super) percent: i64,
    /// Oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) revisions: Vec<Part>,
    #[serde(default)]
    pub(super) step_params: Steps,
}

/// One Revision's part of the share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part {
    pub(super) revision_name: String,
    pub(super) percent: i64,
}

/// When and how far the next step goes; nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Steps {
    #[serde(rename = "starttime", skip_serializing_if = "is_zero")]
    pub(super) start_time: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) next_step_time: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) step_duration: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) step_size: i64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for this shape"
)]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl Rollout {
    /// Reads a state; one that cannot be right is as good as none.
    pub(super) fn parse(json: &str) -> Option<Self> {
        let rollout: Self = serde_json::from_str(json).ok()?;
        rollout
            .configurations
            .iter()
            .all(Entry::is_valid)
            .then_some(rollout)
    }

    /// As the annotation holds it.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain fields serialize")
    }

    /// The target: every Configuration's share for its latest ready Revision alone.
    pub(super) fn target(traffic: &Traffic) -> Self {
        let mut configurations = Vec::new();
        for (tag, members) in &traffic.groups {
            let latest = members.iter().filter(|member| {
                !member.configuration.is_empty() && member.latest_revision == Some(true)
            });
            for member in latest {
                let percent = member.percent.unwrap_or(0);
                if percent > 0 {
                    configurations.push(Entry {
                        configuration_name: member.configuration.clone(),
                        tag: tag.clone(),
                        percent,
                        revisions: vec![Part {
                            revision_name: member.revision.clone(),
                            percent,
                        }],
                        step_params: Steps::default(),
                    });
                }
            }
        }
        let mut target = Self { configurations };
        target.sort();
        target
    }

    /// The parts of a Configuration's share in a group.
    pub(super) fn parts(&self, tag: &str, configuration: &str) -> Option<&[Part]> {
        self.find(tag, configuration)
            .map(|entry| entry.revisions.as_slice())
    }

    /// The names of all Revisions in it.
    pub(super) fn revisions(&self) -> impl Iterator<Item = &str> {
        self.configurations.iter().flat_map(|entry| {
            entry
                .revisions
                .iter()
                .map(|part| part.revision_name.as_str())
        })
    }

    /// Whether any Configuration has more than one Revision at work.
    pub(super) fn is_under_way(&self) -> bool {
        self.configurations
            .iter()
            .any(|entry| entry.revisions.len() > 1)
    }

    /// When the next step is due.
    pub(super) fn next_step_ns(&self) -> Option<i64> {
        let moving = self
            .configurations
            .iter()
            .filter(|entry| entry.revisions.len() > 1);
        moving
            .map(|entry| entry.step_params.next_step_time)
            .filter(|time| *time > 0)
            .min()
    }

    /// The gateway has taken the first step: how long that took tells how fast the others can go.
    pub(super) fn with_measured_steps(mut self, now_ns: i64, duration_s: i64) -> Self {
        for entry in &mut self.configurations {
            if entry.step_params.start_time != 0 && entry.step_params.step_duration == 0 {
                entry.measure(now_ns, duration_s);
            }
        }
        self
    }

    /// The next state on the way to `target`.
    pub(super) fn towards(self, target: Self, now_ns: i64) -> Self {
        let mut next = Self::default();
        for wanted in target.configurations {
            let before = self.find(&wanted.tag, &wanted.configuration_name).cloned();
            let entry = match before {
                None => Some(wanted),
                Some(_) if wanted.percent <= 0 => None,
                Some(_) if wanted.percent == 1 => Some(wanted),
                Some(before) => Some(before.towards(wanted, now_ns)),
            };
            next.configurations.extend(entry);
        }
        next.sort();
        next
    }

    fn find(&self, tag: &str, configuration: &str) -> Option<&Entry> {
        self.configurations
            .iter()
            .find(|entry| entry.tag == tag && entry.configuration_name == configuration)
    }

    fn sort(&mut self) {
        self.configurations
            .sort_by(|a, b| (&a.tag, &a.configuration_name).cmp(&(&b.tag, &b.configuration_name)));
    }
}

impl Entry {
    fn is_valid(&self) -> bool {
        let sum: i64 = self.revisions.iter().map(|part| part.percent).sum();
        let step = self.step_params.step_size;
        (0..=100).contains(&self.percent)
            && (0..=self.percent).contains(&step)
            && sum == self.percent
    }

    fn measure(&mut self, now_ns: i64, duration_s: i64) {
        let remainder = self.percent - 1;
        if remainder <= 0 {
            return;
        }
        let passed_ns = now_ns.saturating_sub(self.step_params.start_time);
        let least_step_s = (passed_ns + SECOND_NS - 1).div_euclid(SECOND_NS).max(1);
        let rest_s = (duration_s - least_step_s).max(1);
        let steps = (rest_s / least_step_s).max(1).min(remainder);
        // Rounded to the nearest.
        self.step_params.step_size = (2 * remainder + steps) / (2 * steps);
        self.step_params.step_duration = rest_s.saturating_mul(SECOND_NS) / steps;
        self.step_params.next_step_time = now_ns.saturating_add(self.step_params.step_duration);
    }

    fn towards(mut self, wanted: Self, now_ns: i64) -> Self {
        self.adjust(wanted.percent);
        let Some(goal) = wanted.revisions.last() else {
            return wanted;
        };
        match self.revisions.last() {
            None => wanted,
            Some(newest) if newest.revision_name == goal.revision_name => {
                if self.revisions.len() < 2 {
                    return wanted;
                }
                self.step(now_ns);
                self
            }
            Some(_) => {
                self.begin(&goal.revision_name, now_ns);
                self
            }
        }
    }

    /// The share itself changed: more goes to the newest, less is taken from the oldest.
    fn adjust(&mut self, percent: i64) {
        let mut difference = percent - self.percent;
        self.percent = percent;
        if difference > 0 {
            if let Some(newest) = self.revisions.last_mut() {
                newest.percent += difference;
            }
            return;
        }
        for part in &mut self.revisions {
            let taken = part.percent.min(-difference);
            part.percent -= taken;
            difference += taken;
        }
        self.revisions.retain(|part| part.percent > 0);
    }

    /// Moves one step's worth to the newest, if it is time.
    fn step(&mut self, now_ns: i64) {
        let steps = self.step_params;
        if steps.step_size <= 0 || now_ns < steps.next_step_time {
            return;
        }
        let Some(mut newest) = self.revisions.pop() else {
            return;
        };
        let mut left = steps.step_size;
        while let Some(last) = self.revisions.last_mut() {
            if last.percent > left {
                last.percent -= left;
                break;
            }
            left -= last.percent;
            self.revisions.pop();
        }
        newest.percent = self.percent - self.revisions.iter().map(|part| part.percent).sum::<i64>();
        self.revisions.push(newest);
        if self.revisions.len() == 1 {
            self.step_params = Steps::default();
        } else {
            self.step_params.next_step_time = now_ns.saturating_add(steps.step_duration);
        }
    }

    /// A new Revision appeared: it begins with one percent.
    fn begin(&mut self, revision: &str, now_ns: i64) {
        self.step_params = Steps {
            start_time: now_ns,
            ..Steps::default()
        };
        if let Some(newest) = self
            .revisions
            .iter_mut()
            .rev()
            .find(|part| part.percent > 0)
        {
            newest.percent -= 1;
        }
        self.revisions.retain(|part| part.percent > 0);
        self.revisions.push(Part {
            revision_name: revision.to_owned(),
            percent: 1,
        });
    }
}

/// How long a rollout shall take, in seconds; 0 for at once.
pub(super) fn duration_s(route: &Route, default_s: i64) -> i64 {
    let own = kinglet_api::keys::ROLLOUT_DURATION.get(route.metadata.annotations.as_ref());
    let own = own
        .and_then(|text| kinglet_api::go::GoDuration::parse(text).ok())
        .map(|span| span.0 / SECOND_NS);
    own.filter(|seconds| *seconds > 0).unwrap_or(default_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(percent: i64, parts: &[(&str, i64)]) -> Entry {
        let part = |(name, percent): &(&str, i64)| Part {
            revision_name: (*name).to_owned(),
            percent: *percent,
        };
        Entry {
            configuration_name: "hello".to_owned(),
            percent,
            revisions: parts.iter().map(part).collect(),
            ..Entry::default()
        }
    }

    fn rollout(entry: Entry) -> Rollout {
        Rollout {
            configurations: vec![entry],
        }
    }

    fn shares(state: &Rollout) -> Vec<i64> {
        state.configurations[0]
            .revisions
            .iter()
            .map(|part| part.percent)
            .collect()
    }

    #[test]
    fn the_first_step_sets_the_pace() {
        // duration, seconds until ready, percent; step size, step duration, shares of the new Revision
        type Row<'r> = (i64, i64, i64, i64, i64, &'r [i64]);
        let rows: [Row<'_>; 6] = [
            (60, 3, 100, 5, 3 * SECOND_NS, &[1, 6, 11, 16]),
            (120, 1, 100, 1, 119 * SECOND_NS / 99, &[1, 2, 3, 4]),
            (100, 5, 100, 5, 5 * SECOND_NS, &[1, 6, 11, 16]),
            (30, 1, 100, 3, SECOND_NS, &[1, 4, 7, 10]),
            (10, 20, 100, 99, SECOND_NS, &[1, 100]),
            (60, 3, 50, 3, 3 * SECOND_NS, &[1, 4, 7, 10]),
        ];
        for (duration, ready_after, percent, size, step, want) in rows {
            let start = 1_000 * SECOND_NS;
            let goal = || rollout(entry(percent, &[("new", percent)]));
            let state = rollout(entry(percent, &[("old", percent)])).towards(goal(), start);
            assert_eq!(shares(&state), [percent - 1, 1]);
            let mut now = start + ready_after * SECOND_NS;
            let mut state = state.with_measured_steps(now, duration);
            assert_eq!(
                state.configurations[0].step_params.step_size, size,
                "{duration} {ready_after}"
            );
            assert_eq!(
                state.configurations[0].step_params.step_duration, step,
                "{duration} {ready_after}"
            );
            let mut observed = vec![1];
            let mut steps = 0;
            while state.is_under_way() {
                let still = state.clone().towards(goal(), now);
                assert_eq!(shares(&still), shares(&state), "no step before its time");
                now = state.next_step_ns().unwrap();
                state = state.towards(goal(), now);
                observed.push(*shares(&state).last().unwrap());
                steps += 1;
                assert!(steps < 200, "it ends");
            }
            assert_eq!(&observed[..want.len()], want, "{duration} {ready_after}");
            assert_eq!(*observed.last().unwrap(), percent);
            assert_eq!(state.configurations[0].step_params, Steps::default());
        }
    }

    #[test]
    fn shares_follow_the_spec_and_a_third_revision_joins() {
        let state = rollout(entry(100, &[("a", 60), ("b", 40)]));
        let less = state.clone().towards(rollout(entry(30, &[("b", 30)])), 0);
        assert_eq!(shares(&less), [30]);
        let third = state.towards(rollout(entry(100, &[("c", 100)])), 5);
        assert_eq!(shares(&third), [60, 39, 1]);
        assert_eq!(third.configurations[0].step_params.start_time, 5);
        let gone = third.towards(Rollout::default(), 6);
        assert_eq!(gone, Rollout::default());
    }

    #[test]
    fn what_cannot_be_right_is_ignored() {
        let good = rollout(entry(100, &[("a", 60), ("b", 40)]));
        assert_eq!(Rollout::parse(&good.to_json()), Some(good));
        for bad in [
            "",
            "{",
            r#"{"configurations":[{"configurationName":"x","percent":100,"revisions":[{"revisionName":"a","percent":1}]}]}"#,
        ] {
            assert_eq!(Rollout::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn it_is_written_as_knative_does() {
        let json = rollout(entry(100, &[("hello-a", 100)])).to_json();
        let want = r#"{"configurations":[{"configurationName":"hello","percent":100,"revisions":[{"revisionName":"hello-a","percent":100}],"stepParams":{}}]}"#;
        assert_eq!(json, want);
    }
}
