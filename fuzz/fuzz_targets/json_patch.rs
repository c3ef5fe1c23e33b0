//! See `kinglet_fuzz::json_patch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kinglet_fuzz::json_patch(data));
