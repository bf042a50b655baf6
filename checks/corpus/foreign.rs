unsafe extern "C" { fn socket(a: i32, b: i32, c: i32) -> i32; }
