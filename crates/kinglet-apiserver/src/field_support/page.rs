//! docs/fields.md from the table.

use std::fmt::Write as _;

use super::{Row, SUPPORT, Treatment};

const HEAD: &str = "# What Kinglet does about each field

Written by `cargo run -p kinglet-apiserver --example fields > docs/fields.md` from `crates/kinglet-apiserver/src/fields/support.txt`, which is
also what the API server decides by. Every field of the kinds that Kinglet serves is here.

- *acted on*: it does what Kubernetes documents, or is kept for clients to read;
- *server*: written by the server, what a client sends is not kept;
- *ignored*: it has no effect by its nature here; accepted with a `Warning` header;
- *refused*: an object that sets it (to anything but zero or the values named) is refused, and the message has the field and these words.
";

/// The page as Markdown.
pub fn page() -> String {
    let mut out = HEAD.to_owned();
    for (of, fields) in &SUPPORT.order {
        let rows: Vec<(&str, &Row)> = fields
            .iter()
            .filter_map(|field| Some((*field, SUPPORT.rows.get(&(*of, *field))?)))
            .collect();
        write!(out, "\n## {}\n", of.replace('.', " ")).expect(MEMORY);
        for (treatment, title) in [
            (Treatment::Acted, "Acted on"),
            (Treatment::Output, "Server"),
        ] {
            let names: Vec<String> = rows
                .iter()
                .filter(|(_, row)| row.treatment == treatment)
                .map(|(field, _)| format!("`{field}`"))
                .collect();
            if !names.is_empty() {
                write!(out, "\n{title}: {}.\n", names.join(", ")).expect(MEMORY);
            }
        }
        let mut others = rows.iter().filter_map(|(field, row)| {
            let treatment = words(row)?;
            Some(format!("| `{field}` | {treatment} | {} |\n", row.words))
        });
        if let Some(first) = others.next() {
            out.push_str("\n| Field | | |\n|---|---|---|\n");
            out.push_str(&first);
            out.extend(others);
        }
    }
    out
}

const MEMORY: &str = "memory takes everything";

fn words(row: &Row) -> Option<String> {
    match row.treatment {
        Treatment::Acted | Treatment::Output => None,
        Treatment::Ignored => Some("ignored".to_owned()),
        Treatment::Refused if row.allowed.is_empty() => Some("refused".to_owned()),
        Treatment::Refused => Some(format!("refused, but for `{}`", row.allowed.join("`, `"))),
    }
}
