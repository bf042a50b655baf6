use std::*;
fn f() { let _ = fs::read("x"); }
