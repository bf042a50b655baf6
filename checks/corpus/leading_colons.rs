fn f() { let _ = ::std::fs::read("x"); }
