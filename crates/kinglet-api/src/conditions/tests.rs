//! Conditions set, kept and derived.

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn brief(conditions: &[Condition]) -> Vec<String> {
    conditions
        .iter()
        .map(|c| {
            format!(
                "{}={}{}{}",
                c.kind,
                c.status.as_str(),
                if c.reason.is_empty() { "" } else { " " },
                c.reason
            )
        })
        .collect()
}

#[test]
fn ready_follows_from_the_dependents() {
    use RevisionCondition::{Active, ContainerHealthy, ResourcesAvailable};
    type States = Vec<(RevisionCondition, ConditionState)>;
    let cases: [(States, &[&str]); 6] = [
        (
            vec![],
            &[
                "ContainerHealthy=Unknown",
                "Ready=Unknown",
                "ResourcesAvailable=Unknown",
            ],
        ),
        (
            vec![
                (ResourcesAvailable, ConditionState::True),
                (ContainerHealthy, ConditionState::True),
            ],
            &[
                "ContainerHealthy=True",
                "Ready=True",
                "ResourcesAvailable=True",
            ],
        ),
        (
            vec![
                (
                    ResourcesAvailable,
                    ConditionState::unknown_because("Deploying", ""),
                ),
                (ContainerHealthy, ConditionState::True),
            ],
            &[
                "ContainerHealthy=True",
                "Ready=Unknown Deploying",
                "ResourcesAvailable=Unknown Deploying",
            ],
        ),
        (
            vec![
                (
                    ContainerHealthy,
                    ConditionState::false_because("ExitCode1", ""),
                ),
                (
                    ResourcesAvailable,
                    ConditionState::unknown_because("Deploying", ""),
                ),
            ],
            &[
                "ContainerHealthy=False ExitCode1",
                "Ready=False ExitCode1",
                "ResourcesAvailable=Unknown Deploying",
            ],
        ),
        (
            vec![
                (Active, ConditionState::false_because("NoTraffic", "")),
                (ResourcesAvailable, ConditionState::True),
                (ContainerHealthy, ConditionState::True),
            ],
            &[
                "Active=False NoTraffic",
                "ContainerHealthy=True",
                "Ready=True",
                "ResourcesAvailable=True",
            ],
        ),
        (
            vec![
                (ContainerHealthy, ConditionState::false_because("First", "")),
                (
                    ResourcesAvailable,
                    ConditionState::false_because("Second", ""),
                ),
            ],
            &[
                "ContainerHealthy=False First",
                "Ready=False Second",
                "ResourcesAvailable=False Second",
            ],
        ),
    ];
    for (states, want) in cases {
        let conditions = states
            .into_iter()
            .fold(Conditions::new(), |all, (kind, state)| {
                all.with(kind, state)
            });
        assert_eq!(brief(&conditions.finish(&[], at(1))), want);
    }
}

#[test]
fn time_moves_only_with_the_answer() {
    let first = Conditions::new()
        .with(ServiceCondition::RoutesReady, ConditionState::True)
        .finish(&[], at(1));
    let second = Conditions::new()
        .with(ServiceCondition::RoutesReady, ConditionState::True)
        .with(ServiceCondition::ConfigurationsReady, ConditionState::True)
        .finish(&first, at(9));
    let times: Vec<_> = second
        .iter()
        .map(|c| {
            (
                c.kind.as_str(),
                c.last_transition_time.as_ref().unwrap().0.as_second(),
            )
        })
        .collect();
    assert_eq!(
        times,
        [("ConfigurationsReady", 9), ("Ready", 9), ("RoutesReady", 1)]
    );
    let third = Conditions::<ServiceCondition>::new().finish(&second, at(20));
    assert_eq!(third, second, "what was not states stays");
}

#[test]
fn extras_are_informative_and_can_go() {
    let with = Conditions::new()
        .with(RevisionCondition::Active, ConditionState::True)
        .finish(&[], at(1));
    assert_eq!(with[0].severity, "Info");
    let gone = Conditions::new()
        .without(RevisionCondition::Active)
        .finish(&with, at(2));
    assert!(gone.iter().all(|c| c.kind != "Active"));
}

#[test]
fn a_kind_without_dependents_tells_ready_itself() {
    let states = Conditions::new()
        .with(MetricCondition::Ready, ConditionState::True)
        .finish(&[], at(1));
    assert_eq!(brief(&states), ["Ready=True"]);
    assert_eq!(states[0].severity, "");
    assert_eq!(
        brief(&Conditions::<MetricCondition>::new().finish(&[], at(1))),
        ["Ready=Unknown"]
    );
}
