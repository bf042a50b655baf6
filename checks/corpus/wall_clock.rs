use std::time;
fn f() { let _ = time::SystemTime::now(); }
