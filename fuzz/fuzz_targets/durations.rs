//! See `kinglet_fuzz::durations`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kinglet_fuzz::durations(data));
