//! Keys and certificates in files.

use std::path::Path;

use rcgen::KeyPair;

use super::{PkiError, failed};
use crate::private;

/// The key in this file, made when there is none.
pub(super) fn key(path: &Path) -> Result<KeyPair, PkiError> {
    if let Some(pem) = read(path)? {
        return KeyPair::from_pem(&pem).map_err(|source| PkiError::Certificate {
            what: format!("parsing {}", path.display()),
            source,
        });
    }
    let made = KeyPair::generate().map_err(failed("generating a key"))?;
    private::write(path, &made.serialize_pem())?;
    Ok(made)
}

pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File {
            action: "reading",
            path: path.to_owned(),
            source,
        }),
    }
}
