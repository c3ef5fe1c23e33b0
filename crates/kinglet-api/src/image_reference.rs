//! Whether a text can name an image, judged as loosely as Knative's admission judges it.
//!
//! Only the verdict is needed here; `kinglet-image` owns what an image reference means.

const REPOSITORY: &str = "abcdefghijklmnopqrstuvwxyz0123456789_-./";

/// Whether `text` is `repository`, `repository:tag` or `repository@sha256:…`, registry in front or not.
pub fn is_reference(text: &str) -> bool {
    is_tag(text) || is_digest(text)
}

fn is_tag(text: &str) -> bool {
    match text.rsplit_once(':') {
        Some((base, tag)) if !tag.contains('/') => {
            let well_formed = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
            (1..=128).contains(&tag.len()) && tag.bytes().all(well_formed) && is_repository(base)
        }
        _ => is_repository(text),
    }
}

fn is_digest(text: &str) -> bool {
    let Some((base, digest)) = text.split_once('@') else {
        return false;
    };
    let Some(hex) = digest.strip_prefix("sha256:") else {
        return false;
    };
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let base = match base.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') && is_tag(base) => repository,
        _ => base,
    };
    hex.len() == 64 && hex.bytes().all(lower_hex) && is_repository(base)
}

fn is_repository(text: &str) -> bool {
    let (registry, repository) = match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), rest)
        }
        _ => (None, text),
    };
    let well_formed =
        (2..=255).contains(&repository.len()) && repository.chars().all(|c| REPOSITORY.contains(c));
    well_formed && registry.is_none_or(is_authority)
}

/// A host with an optional port.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((host, rest)) => (host, rest.strip_prefix(':').unwrap_or(rest)),
            None => return false,
        },
        None => text.split_once(':').unwrap_or((text, "")),
    };
    port.bytes().all(|b| b.is_ascii_digit())
        && !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:%".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::is_reference;

    #[test]
    fn verdicts() {
        let digest = format!("gcr.io/a/b@sha256:{}", "0a".repeat(32));
        let tagged = format!("gcr.io/a/b:v1@sha256:{}", "0a".repeat(32));
        for good in [
            "ubuntu",
            "gcr.io/a/b:v1",
            "localhost:5000/ab:1",
            "https://gcr.io/a",
            &digest,
            &tagged,
            "a/b",
        ] {
            assert!(is_reference(good), "{good}");
        }
        for bad in [
            "",
            "a b",
            "Foo/Bar",
            "localhost:5000/a:1",
            "a",
            "ubuntu:",
            "ubuntu@sha256:12",
            "ubuntu:a b",
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
    }
}
