//! Hosts, routers, NATs and loss in network namespaces, running the shipped binary; packet captures.
#![forbid(unsafe_code)]
