fn f() { use std::time::Instant as Clock; let _ = Clock::now(); }
