#[cfg(test)]
mod tests { fn f() { let _ = std::fs::read("x"); } }
