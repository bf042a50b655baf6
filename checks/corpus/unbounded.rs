use std::sync::mpsc;
fn f() { let (_a, _b) = mpsc::channel::<u8>(); }
