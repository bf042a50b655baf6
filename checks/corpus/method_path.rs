fn f() -> std::time::Instant { <std::time::Instant>::now() }
