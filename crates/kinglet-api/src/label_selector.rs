//! What is wrong with a structured label selector, worded as Kubernetes does.

use kinglet_quantity::syntax;
use serde_json::Value;

/// Returns what is wrong with a selector of `matchLabels` and `matchExpressions`.
pub fn problem(selector: &Value) -> Option<String> {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let of_labels = labels.into_iter().find_map(|(key, value)| {
        syntax::key_error(key).or_else(|| syntax::value_error(value.as_str().unwrap_or_default()))
    });
    of_labels.or_else(|| {
        let expressions = selector["matchExpressions"].as_array();
        expressions.into_iter().flatten().find_map(expression)
    })
}

fn expression(expression: &Value) -> Option<String> {
    let text = |field: &str| expression[field].as_str().unwrap_or_default();
    let values: Vec<&str> = expression["values"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|value| value.as_str().unwrap_or_default())
        .collect();
    let operator = text("operator");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            Some("for 'in', 'notin' operators, values set can't be empty".to_owned())
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            Some("values set must be empty for exists and does not exist".to_owned())
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => syntax::key_error(text("key"))
            .or_else(|| values.iter().find_map(|value| syntax::value_error(value))),
        _ => Some(format!(
            "{} is not a valid label selector operator",
            crate::go::quote(operator)
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::problem;

    #[test]
    fn selectors_are_judged() {
        for good in [
            json!({}),
            json!({"matchLabels": {"a.b/c": "d"}}),
            json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}),
        ] {
            assert_eq!(problem(&good), None, "{good}");
        }
        for (bad, want) in [
            (
                json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}),
                "\"Like\" is not a valid label selector operator",
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                "for 'in', 'notin' operators, values set can't be empty",
            ),
        ] {
            assert_eq!(problem(&bad).as_deref(), Some(want));
        }
        assert!(problem(&json!({"matchLabels": {"a b": "d"}})).is_some());
        assert!(problem(&json!({"matchLabels": {"a": "d e"}})).is_some());
    }
}
