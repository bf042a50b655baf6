//! The command line: one file per command, text and JSON output.
#![forbid(unsafe_code)]
