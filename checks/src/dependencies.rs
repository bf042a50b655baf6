//! Every external crate that our crates name, with its reason.
//!
//! The list is the place where a new dependency is argued for. "native" marks crates that build C or assembly.

use std::collections::BTreeSet;

use cargo_metadata::Metadata;

use crate::Violation;

/// Name and reason.
const LISTED: &[(&str, &str)] = &[
    ("anyhow", "error context in programs"),
    ("arc-swap", "published tables that workers read without a lock"),
    ("argon2", "disablement values of Tailnet Lock"),
    ("blake2", "hash of both Noise handshakes and of WireGuard's MACs"),
    ("bytes", "body type of hyper"),
    ("cargo_metadata", "checks only: the dependency graph"),
    ("chacha20poly1305", "AEAD of handshakes and cookies (cold paths)"),
    ("clap", "command line"),
    ("clap_complete", "shell completions"),
    ("crc32fast", "fingerprint of STUN messages"),
    ("crossbeam-queue", "bounded queues between threads"),
    ("crypto_box", "NaCl boxes of disco and DERP"),
    ("curve25519-dalek", "both Ed25519 verdicts of Tailnet Lock, alone and in batches"),
    ("data-encoding", "hex, base32, base64"),
    ("futures-util", "streams and combinators over tokio"),
    ("hmac", "HKDF of Noise"),
    ("http", "header and request types of hyper"),
    ("http-body-util", "body helpers of hyper"),
    ("hyper", "HTTP/1 and HTTP/2, client and server"),
    ("hyper-util", "joins hyper to tokio"),
    ("ipnet", "prefixes"),
    ("jiff", "times of the protocol"),
    ("libc", "system calls that nix lacks, in `sys` modules"),
    ("nix", "safe system calls"),
    ("proc-macro2", "checks only: token trees"),
    ("qrcode", "login URL as a QR code on a terminal"),
    ("rand_core", "traits of random generators and the system's generator"),
    ("rcgen", "lab only: certificates of the embedded servers"),
    ("ring", "native: AEAD of data packets, digests of certificate pins"),
    ("rustls", "TLS"),
    ("rustls-native-certs", "the system's trust roots"),
    ("rustls-pki-types", "certificate types of rustls"),
    ("ruzstd", "zstd of the map stream"),
    ("serde", "wire formats"),
    ("serde_json", "JSON"),
    ("smoltcp", "TCP and UDP of the service address"),
    ("socket2", "socket options before connect"),
    ("subtle", "constant-time comparison"),
    ("syn", "checks only: syntax trees"),
    ("tempfile", "tests only: folders that clean up"),
    ("thiserror", "error enums"),
    ("tokio", "runtime of the shells"),
    ("tokio-rustls", "joins rustls to tokio"),
    ("tracing", "structured logs"),
    ("tracing-subscriber", "log output and filters"),
    ("tun-rs", "creates the TUN device"),
    ("x25519-dalek", "X25519"),
    ("zbus", "D-Bus, for systemd-resolved"),
    ("zeroize", "wiping secrets"),
];

pub(crate) fn check(metadata: &Metadata) -> Vec<Violation> {
    let mut used = BTreeSet::new();
    let mut violations = Vec::new();
    for package in metadata.workspace_packages() {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_none()) {
            used.insert(dependency.name.clone());
            if dependency.source.as_ref().is_none_or(|source| !source.repr.starts_with("registry+")) {
                violations
                    .push(format!("{}: {} does not come from the registry", package.name, dependency.name));
            }
        }
    }
    let listed: BTreeSet<String> = LISTED.iter().map(|(name, _)| (*name).to_owned()).collect();
    for name in used.difference(&listed) {
        violations.push(format!(
            "{name}: not in the list of dependencies; add it with its reason to checks/src/dependencies.rs"
        ));
    }
    for name in listed.difference(&used) {
        violations.push(format!("{name}: in the list of dependencies but used by no crate; remove it"));
    }
    violations
}
