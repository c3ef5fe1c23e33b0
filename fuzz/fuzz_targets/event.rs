//! See `kinglet_fuzz::event`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kinglet_fuzz::event(data));
