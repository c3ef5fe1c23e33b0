//! YAML streams as JSON values.

use serde_json::Value;

/// Largest stream that is read; etcd's limit on one object, times what a long manifest may hold.
const STREAM_BYTES_MAX: usize = 16 << 20;

/// Why a stream could not be read.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// It is longer than anything sensible.
    #[error("reading YAML of {bytes} bytes: more than the limit of {STREAM_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is not YAML, or too deep or repetitive for the parser's budget.
    #[error("reading YAML: {0}")]
    Syntax(Box<serde_saphyr::Error>),
}

/// The documents of a stream, empty ones left out.
pub fn documents(stream: &str) -> Result<Vec<Value>, YamlError> {
    if stream.len() > STREAM_BYTES_MAX {
        return Err(YamlError::TooLong {
            bytes: stream.len(),
        });
    }
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(stream).map_err(|error| YamlError::Syntax(Box::new(error)))?;
    Ok(documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect())
}

/// The only document of a text; `null` if it has none.
pub fn document(text: &str) -> Result<Value, YamlError> {
    Ok(documents(text)?.into_iter().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn several_documents() {
        let read =
            documents("a: 1\n---\n# nothing\n---\nb: 'x'\nc: \"1\"\nd: 5m\ne: 1.5\nf: null\n")
                .unwrap();
        assert_eq!(
            read,
            [
                json!({"a": 1}),
                json!({"b": "x", "c": "1", "d": "5m", "e": 1.5, "f": null})
            ]
        );
        assert!(documents("a: [").is_err());
        assert_eq!(documents("").unwrap(), Vec::<Value>::new());
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
        for (this, last) in ('b'..='i').zip('a'..) {
            bomb.push_str(&format!(
                "{this}: &{this} [{}]\n",
                vec![format!("*{last}"); 9].join(",")
            ));
        }
        assert!(documents(&bomb).is_err());
    }
}
