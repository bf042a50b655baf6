mod a { pub mod b { use std::thread as t; pub fn f() { t::yield_now(); } } }
