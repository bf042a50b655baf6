//! Request and reply types of the LocalAPI and its access levels.
#![forbid(unsafe_code)]
