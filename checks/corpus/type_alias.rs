type Clock = std::time::Instant;
fn f() -> Clock {
    Clock::now()
}
