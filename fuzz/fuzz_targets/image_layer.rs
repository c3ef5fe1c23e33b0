//! See `kinglet_fuzz::image_layer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kinglet_fuzz::image_layer(data));
