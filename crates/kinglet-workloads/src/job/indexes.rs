//! Sets of completion indexes, written as `0-2,5`: pure.

use std::collections::BTreeSet;

/// Reads a set; what cannot be read is left out.
pub(super) fn parse(text: &str, end: u32) -> BTreeSet<u32> {
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            set.extend(first..=last.min(end.saturating_sub(1)));
        }
    }
    set.retain(|index| *index < end);
    set
}

/// Writes a set. Two neighbours are listed, three and more are a range, as in Kubernetes.
pub(super) fn format(set: &BTreeSet<u32>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut run: Option<(u32, u32)> = None;
    let mut end = |run: Option<(u32, u32)>| match run {
        Some((first, last)) if first == last => parts.push(first.to_string()),
        Some((first, last)) if first + 1 == last => parts.push(format!("{first},{last}")),
        Some((first, last)) => parts.push(format!("{first}-{last}")),
        None => {}
    };
    for index in set {
        run = match run {
            Some((first, last)) if last + 1 == *index => Some((first, *index)),
            other => {
                end(other);
                Some((*index, *index))
            }
        };
    }
    end(run);
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_kubernetes_writes_them() {
        for (text, members) in [
            ("", &[][..]),
            ("3", &[3]),
            ("0,1", &[0, 1]),
            ("0-2", &[0, 1, 2]),
            ("0,1,3-5,9", &[0, 1, 3, 4, 5, 9]),
        ] {
            let set: BTreeSet<u32> = members.iter().copied().collect();
            assert_eq!(format(&set), text);
            assert_eq!(parse(text, 10), set, "{text}");
        }
        assert_eq!(parse("1-4000000000,x,7-", 3), BTreeSet::from([1, 2]));
    }
}
