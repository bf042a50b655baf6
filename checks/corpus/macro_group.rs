macro_rules! open { () => { use std::fs::{File, read}; } }
