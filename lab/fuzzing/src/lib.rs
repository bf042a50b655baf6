//! The bodies of the fuzz targets: one for each decoder of input that comes from the network or from the disk.
//!
//! [`TARGETS`] is the list. A body takes any bytes and must not panic, must not take long, and checks what a decoder
//! promises: what it wrote reads back as it was, a length lies within what was given. Machines are driven by a script of
//! [`input::Input::records`], so that the fuzzer reaches what lies behind the first message.
//!
//! The tests of this crate replay the seeds in `lab/fuzz/seeds` and mutations of them through every target. The fuzzer itself is
//! `lab/fuzz`, outside of the workspace because it needs a nightly compiler and a C++ library:
//!
//! ```text
//! cargo +nightly fuzz run --fuzz-dir lab/fuzz packet_ipv4 lab/fuzz/corpus/packet_ipv4 lab/fuzz/seeds/packet_ipv4
//! ```
//!
//! `checks` compares the targets with the decoders that it finds in the code: see its module `decoders`.
#![forbid(unsafe_code)]
#![expect(clippy::panic, reason = "a panic is how a target tells the fuzzer of a defect")]

pub mod aead;
pub mod agent;
pub mod control;
pub mod dataplane;
pub mod derp;
pub mod dns;
pub mod engine;
pub mod exit;
pub mod filter;
pub mod input;
pub mod linux;
pub mod net;
pub mod noise;
pub mod packet;
pub mod path;
pub mod peer;
pub mod service;
pub mod tka;
pub mod wireguard;

/// A body.
pub type Target = fn(&[u8]);

/// All targets: module and function, joined by an underscore.
pub const TARGETS: &[(&str, Target)] = &[
    ("aead_batch", aead::batch),
    ("agent_localapi", agent::localapi),
    ("agent_answers", agent::answers),
    ("agent_state_file", agent::state_file),
    ("agent_dns_message", agent::dns_message),
    ("agent_config_file", agent::config_file),
    ("agent_takeover", agent::takeover),
    ("control_map_stream", control::map_stream),
    ("control_early_payload", control::early_payload),
    ("control_c2n_request", control::c2n_request),
    ("control_netmap", control::netmap),
    ("control_netmap_cache", control::netmap_cache),
    ("control_replies", control::replies),
    ("dataplane_inbound", dataplane::inbound),
    ("dataplane_outbound", dataplane::outbound),
    ("derp_frames", derp::frames),
    ("derp_greetings", derp::greetings),
    ("derp_client", derp::client),
    ("dns_query", dns::query),
    ("dns_answer", dns::answer),
    ("dns_texts", dns::texts),
    ("engine_control_messages", engine::control_messages),
    ("exit_socks5", exit::socks5),
    ("exit_http", exit::http),
    ("exit_udp", exit::udp),
    ("exit_texts", exit::texts),
    ("exit_flows", exit::flows),
    ("filter_rules", filter::rules),
    ("filter_packets", filter::packets),
    ("linux_netlink", linux::netlink),
    ("linux_files", linux::files),
    ("net_dns_answer", net::dns_answer),
    ("net_files", net::files),
    ("net_proxy", net::proxy),
    ("net_certificate", net::certificate),
    ("net_url", net::url),
    ("noise_response", noise::response),
    ("noise_responder", noise::responder),
    ("noise_records", noise::records),
    ("packet_ipv4", packet::ipv4),
    ("packet_gso", packet::gso),
    ("packet_gro", packet::gro),
    ("packet_tsmp", packet::tsmp),
    ("path_disco", path::disco),
    ("path_stun", path::stun),
    ("path_datagram", path::datagram),
    ("path_machine", path::machine),
    ("service_packets", service::packets),
    ("tka_updates", tka::updates),
    ("tka_signatures", tka::signatures),
    ("tka_texts", tka::texts),
    ("wireguard_handshake", wireguard::handshake),
    ("wireguard_session", wireguard::session),
];

#[cfg(test)]
mod tests;
