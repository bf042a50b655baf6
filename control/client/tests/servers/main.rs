//! The client against whole control servers on loopback: the lab's, and a real headscale where one is on PATH. Needs no
//! root and no network.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test waits for one event among all others")]

mod client;
mod headscale;
mod with_headscale;
mod with_lab;
