//! See `kinglet_fuzz::cesql`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kinglet_fuzz::cesql(data));
