extern crate std as quiet;
fn f() { let _ = quiet::fs::read("x"); }
