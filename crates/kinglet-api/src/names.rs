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

/// The resource of a kind, as Kubernetes guesses it: lower case, English plural.
pub fn plural(kind: &str) -> String {
    let singular = kind.to_lowercase();
    match singular.as_bytes() {
        _ if singular == "endpoints" => singular,
        [.., b's'] => format!("{singular}es"),
        [.., b'y'] => format!("{}ies", &singular[..singular.len() - 1]),
        _ => format!("{singular}s"),
    }
}

/// Channel that a Broker's events are kept in.
pub fn broker_channel(broker: &str) -> String {
    child(broker, "-kne-trigger")
}

/// Subscription of a Trigger on its Broker's channel.
pub fn trigger_subscription(broker: &str, trigger: &str, uid: &str) -> String {
    child(&format!("{broker}-{trigger}-"), uid)
}

/// Kubernetes Service that a channel is reached by.
pub fn channel_service(channel: &str) -> String {
    child(channel, "-kn-channel")
}

/// Channel and Subscription of a Sequence's n-th step.
pub fn sequence_step(sequence: &str, step: usize) -> String {
    format!("{sequence}-kn-sequence-{step}")
}

/// Channel before a Parallel's branches.
pub fn parallel_channel(parallel: &str) -> String {
    format!("{parallel}-kn-parallel")
}

/// Channel of a Parallel's n-th branch, and the Subscription of its subscriber.
pub fn parallel_branch(parallel: &str, branch: usize) -> String {
    format!("{parallel}-kn-parallel-{branch}")
}

/// Subscription of the filter of a Parallel's n-th branch.
pub fn parallel_filter(parallel: &str, branch: usize) -> String {
    format!("{parallel}-kn-parallel-filter-{branch}")
}

/// Service account that an object sends as.
pub fn oidc_service_account(object: &str, group: &str, kind: &str) -> String {
    child(object, &format!("-oidc-{group}-{kind}")).to_lowercase()
}

/// EventType that was made from traffic.
pub fn seen_event_type(addressable: &str, namespace: &str, kind: &str, source: &str) -> String {
    let hash = md5::hex(format!("{kind}{source}{namespace}{addressable}").as_bytes());
    dns_1123_subdomain(&format!("et-{addressable}-{hash}"))
}

/// EventType of what a source says about its events.
pub fn source_event_type(kind: &str, source: &str, schema: &str, uid: &str) -> String {
    md5::hex(format!("{kind}{source}{schema}{uid}").as_bytes())
}

/// Job of a JobSink for one event; the same event has the same Job.
pub fn sink_job(job_sink: &str, source: &str, id: &str) -> String {
    child(
        &format!("{job_sink}-"),
        &md5::hex(format!("{source}{id}").as_bytes()),
    )
}

/// Makes a name that Kubernetes takes out of a text: unchanged if it is one already.
pub fn dns_1123_subdomain(text: &str) -> String {
    /// Longest name, and what a longer text is cut to.
    const LEN_MAX: usize = 253;
    const CUT: usize = 243;
    if crate::formats::dns_1123_subdomain(text).is_empty() {
        return text.to_owned();
    }
    let text = if text.len() > LEN_MAX {
        head(text, CUT)
    } else {
        text
    };
    let kept: String = text
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
        .collect();
    kept.trim_matches(['-', '.']).to_owned()
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
    fn names_of_eventing_are_those_that_were_recorded() {
        use super::*;
        assert_eq!(
            trigger_subscription("default", "all", "9964ba31-15f6-4c87-8bc5-e4d2ffc1df03"),
            "default-all-9964ba31-15f6-4c87-8bc5-e4d2ffc1df03"
        );
        assert_eq!(
            seen_event_type("default", "eventtypes", "typed.event", "/from/here"),
            "et-default-202340e42e8aafbfb4ea535f96874b32"
        );
        assert_eq!(broker_channel("default"), "default-kne-trigger");
        assert_eq!(parallel_filter("par", 2), "par-kn-parallel-filter-2");
        let long = "t".repeat(60);
        let subscription = trigger_subscription("b", &long, "9964ba31-15f6-4c87-8bc5-e4d2ffc1df03");
        assert!(subscription.len() <= 63, "{subscription}");
    }

    #[test]
    fn any_text_becomes_a_name() {
        for (text, want) in [("a.b-c", "a.b-c"), ("-A_b/C.", "abc"), ("Größe", "gre")] {
            assert_eq!(super::dns_1123_subdomain(text), want);
        }
        assert_eq!(super::dns_1123_subdomain(&"A".repeat(300)).len(), 243);
    }

    #[test]
    fn a_long_suffix_still_fits() {
        let name = child("parent", &"-suffix".repeat(12));
        assert!(name.len() <= 63, "{name}");
        assert!(name.starts_with("parent"));
        assert!(name.ends_with(|c: char| c.is_ascii_alphanumeric()));
    }
}
