//! X-Request-Id.

use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

/// Makes X-Request-Id values: unique, not secret.
pub(crate) struct RequestIds {
    key: u64,
    count: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new(key: u64) -> Self {
        Self {
            key,
            count: AtomicU64::new(0),
        }
    }

    /// In the shape of a version 4 UUID.
    pub(crate) fn next(&self) -> HeaderValue {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let high = mix(self.key ^ count) & !0xf000 | 0x4000;
        let low = mix(self.key.rotate_left(32).wrapping_add(count)) & !(0b11 << 62) | 0b10 << 62;
        let bits = u128::from(high) << 64 | u128::from(low);
        let mut text = *b"00000000-0000-4000-8000-000000000000";
        let mut digit = 0;
        for place in &mut text {
            if *place != b'-' {
                *place = b"0123456789abcdef"[(bits >> (124 - 4 * digit)) as usize & 0xf];
                digit += 1;
            }
        }
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes")
    }
}

/// splitmix64's finaliser.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
