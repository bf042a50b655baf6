mod fs { pub fn read() {} }
fn f() { fs::read(); }
