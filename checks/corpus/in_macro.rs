macro_rules! open { () => { std::fs::File::open("x") } }
fn f() { let _ = open!(); }
