//! See `kinglet_fuzz::registries_conf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kinglet_fuzz::registries_conf(data));
