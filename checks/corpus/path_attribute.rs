#[path = "elsewhere.txt"]
mod hidden;
