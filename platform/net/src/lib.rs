//! How the agent's own connections leave the host: underlay resolver, bypass mark, environment proxies, TLS roots and pins.
#![forbid(unsafe_code)]
