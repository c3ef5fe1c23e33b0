//! See `kinglet_fuzz::log_template`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kinglet_fuzz::log_template(data));
