//! What is said before logs begin and after they end.

use std::fmt::Display;

/// A line for whoever started the program.
#[expect(clippy::print_stdout, reason = "the answer of a command")]
pub(crate) fn line(text: &dyn Display) {
    println!("{text}");
}

/// An error for whoever started the program.
#[expect(clippy::print_stderr, reason = "there may be no log yet")]
pub(crate) fn error(text: &dyn Display) {
    eprintln!("{text}");
}
