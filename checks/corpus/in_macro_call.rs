fn f() { println_to!(std::env::var("HOME")); }
