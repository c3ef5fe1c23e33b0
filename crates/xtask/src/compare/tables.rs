//! The tables that kubectl prints: the same rows, columns and values.

use std::path::Path;

use kinglet_testkit::kubectl;

/// What the recorder asked for, in its order.
const KINDS: &str = "ksvc,configurations.serving.knative.dev,revisions.serving.knative.dev,routes.serving.knative.dev,\
podautoscalers.autoscaling.internal.knative.dev,metrics.autoscaling.internal.knative.dev,\
serverlessservices.networking.internal.knative.dev,ingresses.networking.internal.knative.dev,\
images.caching.internal.knative.dev,deployments,replicasets,pods,services";

/// Columns that differ by nature or as exceptions of the objects say.
const IGNORED: [&str; 4] = ["AGE", "CLUSTER-IP", "EXTERNAL-IP", "ACTIVATORS"];

/// Answers how many rows differ.
pub(crate) fn compare(
    kubeconfig: &Path,
    namespace: &str,
    recorded: &Path,
) -> anyhow::Result<usize> {
    let Ok(recorded) = std::fs::read_to_string(recorded) else {
        return Ok(0);
    };
    let printed = kubectl::expect(kubeconfig, &["-n", namespace, "get", KINDS])?;
    let (expected, actual) = (rows(&recorded), rows(&printed));
    let missing = expected
        .iter()
        .filter(|row| !actual.contains(row))
        .map(|row| ("missing", row));
    let extra = actual
        .iter()
        .filter(|row| !expected.contains(row))
        .map(|row| ("not expected", row));
    let wrong: Vec<_> = missing.chain(extra).collect();
    println!(
        "   kubectl get: {} rows, {} differences",
        expected.len(),
        wrong.len()
    );
    for (what, row) in &wrong {
        println!("     {what}: {row}");
    }
    Ok(wrong.len())
}

/// Each row with the names of its columns; what is ignored is left out, random suffixes are replaced.
fn rows(text: &str) -> Vec<String> {
    let mut rows = Vec::new();
    let mut columns: Vec<(&str, usize)> = Vec::new();
    for line in text.lines() {
        if line.is_empty() {
            columns.clear();
        } else if columns.is_empty() {
            columns = headers(line);
        } else {
            let cells = columns.iter().enumerate().map(|(index, (name, from))| {
                let to = columns
                    .get(index + 1)
                    .map_or(line.len(), |(_, to)| *to)
                    .min(line.len());
                let cell = line.get((*from).min(to)..to).unwrap_or_default().trim();
                (
                    *name,
                    if index == 0 {
                        plain_name(cell)
                    } else {
                        cell.to_owned()
                    },
                )
            });
            let kept = cells
                .filter(|(name, _)| !IGNORED.contains(name))
                .map(|(name, cell)| format!("{name}={cell}"));
            rows.push(kept.collect::<Vec<_>>().join(" | "));
        }
    }
    rows
}

/// Columns and where they begin; a name may hold single spaces.
fn headers(line: &str) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    for part in line.split("  ") {
        let name = part.trim();
        if !name.is_empty() {
            found.push((name, at + part.len() - part.trim_start().len()));
        }
        at += part.len() + 2;
    }
    found
}

fn plain_name(name: &str) -> String {
    let random = match name.split('/').next() {
        Some("replicaset.apps") => 1,
        Some("pod") => 2,
        _ => 0,
    };
    let parts: Vec<&str> = name.rsplitn(random + 1, '-').collect();
    let kept = parts.last().copied().unwrap_or(name);
    format!("{kept}{}", "-RANDOM".repeat(random))
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn rows_are_compared_by_column() {
        let table = "NAME                              CONFIG NAME   AGE\npod/hello-deployment-75c6f-ckpw7   hello         5s\n\nNAME    READY\nksvc/a  \n";
        assert_eq!(
            rows(table),
            [
                "NAME=pod/hello-deployment-RANDOM-RANDOM | CONFIG NAME=hello",
                "NAME=ksvc/a | READY="
            ]
        );
        let header = super::headers("NAME    CONFIG NAME   READY");
        assert_eq!(header, [("NAME", 0), ("CONFIG NAME", 8), ("READY", 22)]);
    }
}
