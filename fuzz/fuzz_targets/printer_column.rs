//! See `kinglet_fuzz::printer_column`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kinglet_fuzz::printer_column(data));
