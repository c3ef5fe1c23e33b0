//! Columns the way kubectl prints them: three spaces apart, no borders.

use serde_json::Value;

/// Prints server-made tables; `wide` adds the columns of lower priority.
pub(crate) fn render(
    table: &Value,
    wide: bool,
    headers: bool,
    prefix: Option<&str>,
    namespaces: bool,
) -> String {
    let empty = Vec::new();
    let columns: Vec<(usize, String)> = table["columnDefinitions"]
        .as_array()
        .unwrap_or(&empty)
        .iter()
        .enumerate()
        .filter(|(_, column)| wide || column["priority"].as_i64().unwrap_or(0) == 0)
        .map(|(index, column)| {
            (
                index,
                column["name"].as_str().unwrap_or_default().to_uppercase(),
            )
        })
        .collect();
    let mut rows = Vec::new();
    if headers {
        let mut head: Vec<String> = columns.iter().map(|(_, name)| name.clone()).collect();
        if namespaces {
            head.insert(0, "NAMESPACE".to_owned());
        }
        rows.push(head);
    }
    for row in table["rows"].as_array().unwrap_or(&empty) {
        let mut cells: Vec<String> = columns
            .iter()
            .map(|(index, _)| cell(&row["cells"][*index]))
            .collect();
        if let (Some(prefix), Some(first)) = (prefix, cells.first_mut()) {
            *first = format!("{prefix}/{first}");
        }
        if namespaces {
            cells.insert(0, cell(&row["object"]["metadata"]["namespace"]));
        }
        rows.push(cells);
    }
    align(&rows)
}

/// Pads every column but the last to its widest cell and three spaces.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..width)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < width {
                text.extend(std::iter::repeat_n(
                    ' ',
                    widths[column] - cell.chars().count() + 3,
                ));
            }
        }
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', "\\n"),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn like_kubectl() {
        let table = json!({"columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "Image", "priority": 1}],
            "rows": [{"cells": ["hello", "True", "x"]}, {"cells": ["a", null, "y"]}]});
        assert_eq!(
            render(&table, false, true, None, false),
            "NAME    READY\nhello   True\na       \n"
        );
        assert_eq!(
            render(&table, true, false, Some("ksvc"), false),
            "ksvc/hello   True   x\nksvc/a              y\n"
        );
    }
}
