use std::time::Instant;
fn f() -> Instant { Instant::now() }
