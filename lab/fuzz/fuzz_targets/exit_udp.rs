#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tsrs_lab_fuzzing::exit::udp(data));
