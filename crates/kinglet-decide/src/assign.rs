//! Which pods of a Revision each activator sends requests to (spec/serving.md 6.2.2).

/// The pods, by their places in the sorted list, of activator number `own` among `activators`.
///
/// A Revision without a limit is everybody's, and so is every Revision for an activator that its Endpoints do not name
/// (`own` is `None`).
pub fn share(
    container_concurrency: u32,
    pods: usize,
    activators: usize,
    own: Option<usize>,
) -> Vec<usize> {
    let Some(own) = own.filter(|_| container_concurrency > 0 && pods > 0) else {
        return (0..pods).collect();
    };
    if activators > pods {
        return vec![own % pods];
    }
    let each = pods / activators;
    let mut share: Vec<usize> = (own * each..(own + 1) * each).collect();
    if own < pods % activators {
        share.push(activators * each + own);
    }
    share
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(pods: usize, activators: usize) -> Vec<Vec<usize>> {
        (0..activators)
            .map(|own| share(1, pods, activators, Some(own)))
            .collect()
    }

    #[test]
    fn what_knative_assigns() {
        assert_eq!(shares(5, 3), [vec![0, 3], vec![1, 4], vec![2]]);
        assert_eq!(shares(3, 5), [[0], [1], [2], [0], [1]]);
        let counts = |pods, activators| {
            let counts: Vec<usize> = shares(pods, activators).iter().map(Vec::len).collect();
            counts
        };
        assert_eq!(counts(20, 3), [7, 7, 6]);
        assert_eq!(counts(24, 5), [5, 5, 5, 5, 4]);
        assert_eq!(share(0, 3, 2, Some(1)), [0, 1, 2], "no limit");
        assert_eq!(share(1, 3, 2, None), [0, 1, 2], "not named");
        assert_eq!(share(1, 0, 2, Some(1)), [] as [usize; 0]);
    }

    proptest! {
        #[test]
        fn every_pod_is_somebodys_and_nobody_is_without(pods in 1usize..50, activators in 1usize..20) {
            let shares = shares(pods, activators);
            let mut all: Vec<usize> = shares.iter().flatten().copied().collect();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all, (0..pods).collect::<Vec<_>>());
            prop_assert!(shares.iter().all(|share| !share.is_empty()));
        }
    }
}
