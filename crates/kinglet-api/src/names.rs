//! Names of child objects: parent plus suffix, shortened by a hash where Kubernetes allows no more.
//!
//! Must equal Knative's own names byte for byte: a takeover finds its objects by them.

mod md5;

/// Longest name of a child (a DNS label).
const NAME_LEN_MAX: usize = 63;
/// Length of an MD5 sum in hexadecimal.
const HASH_LEN: usize = 32;
/// What may stay in front of the hash.
const HEAD_LEN: usize = NAME_LEN_MAX - HASH_LEN;

/// Name of a child of `parent`, at most 63 bytes.
pub fn child(parent: &str, suffix: &str) -> String {
    if parent.len() + suffix.len() <= NAME_LEN_MAX {
        return format!("{parent}{suffix}");
    }
    if suffix.len() < HEAD_LEN {
        return format!(
            "{}{}{suffix}",
            head(parent, HEAD_LEN - suffix.len()),
            md5::hex(parent.as_bytes())
        );
    }
    let hash = md5::hex(format!("{parent}{suffix}").as_bytes());
    let mut name = format!("{}{hash}", head(parent, HEAD_LEN));
    let room = NAME_LEN_MAX - name.len();
    name.push_str(head(suffix, room));
    name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_owned()
}

/// At most `bytes` bytes from the front, never cutting a character in two.
fn head(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Name of the n-th Revision of a Configuration (`hello-00001`).
pub fn revision(configuration: &str, generation: i64) -> String {
    child(configuration, &format!("-{generation:05}"))
}

/// Deployment of a Revision.
pub fn deployment(revision: &str) -> String {
    child(revision, "-deployment")
}

/// Image cache object of a Revision's container.
pub fn image_cache(revision: &str, container: &str) -> String {
    child(revision, &format!("-cache-{container}"))
}

/// Private Kubernetes Service of a ServerlessService.
pub fn private_service(serverless_service: &str) -> String {
    child(serverless_service, "-private")
}

/// Full in-cluster host name of a Kubernetes Service.
pub fn service_host(name: &str, namespace: &str, cluster_domain: &str) -> String {
    format!("{name}.{namespace}.svc.{cluster_domain}")
}

#[cfg(test)]
mod tests {
    use super::child;

    #[test]
    fn long_names_are_hashed_as_knative_does() {
        let long = "a-really-long-service-name-that-goes-on-and-on-and-on-forever";
        let sixty_three = "a".repeat(63);
        let domain =
            "this.is.a.very.long.domain.name.that.exceeds.sixtythree.characters.example.com";
        for (parent, suffix, want) in [
            ("hello", "-00001", "hello-00001"),
            (
                long,
                "-00001",
                "a-really-long-service-named5d91c77e56f3c08c95f132b47668bd-00001",
            ),
            (
                &sixty_three,
                "-deployment",
                "aaaaaaaaaaaaaaaaaaaab06521f39153d618550606be297466d5-deployment",
            ),
            (
                domain,
                "",
                "this.is.a.very.long.domain.name7fd1623b6f09f6b5fbf7c5869be302c6",
            ),
        ] {
            assert_eq!(child(parent, suffix), want);
        }
    }

    #[test]
    fn a_long_suffix_still_fits() {
        let name = child("parent", &"-suffix".repeat(12));
        assert!(name.len() <= 63, "{name}");
        assert!(name.starts_with("parent"));
        assert!(name.ends_with(|c: char| c.is_ascii_alphanumeric()));
    }
}
