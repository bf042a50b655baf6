use std as s;
use s::fs as files;
fn f() { let _ = files::read("x"); }
