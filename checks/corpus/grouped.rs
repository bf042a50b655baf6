use std::{fmt, fs::{self, File}};
fn f() -> fmt::Result { let _ = File::open("x"); Ok(()) }
