//! The `pod-template-hash`: a short stable name for a Pod template.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The alphabet that Kubernetes uses for names nobody should read as words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Hash of a template; `collisions` gives another one when a name was taken.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut text = serde_json::to_vec(template).unwrap_or_default();
    if collisions > 0 {
        text.extend_from_slice(&collisions.to_le_bytes());
    }
    // FNV-1a, 32 bits: stable over versions of this program, which a library's hasher does not promise.
    let sum = text.iter().fold(0x811c_9dc5_u32, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    sum.to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_stable_and_changes_with_the_collision_count() {
        let template = PodTemplateSpec::default();
        let first = template_hash(&template, 0);
        assert_eq!(first, template_hash(&template, 0));
        assert_ne!(first, template_hash(&template, 1));
        assert!(first.bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
