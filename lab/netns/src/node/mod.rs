//! What runs on hosts: our agent, the real `tailscaled`, headscale, wireguard-go.

mod agent;
mod any;
mod headscale;
mod server;
mod tailscaled;
mod wireguard_go;

pub use agent::{Agent, UpArgs, agent_binary};
pub use any::{Node, NodeKind};
pub use headscale::{Headscale, HeadscaleKey, HeadscaleNode};
pub use server::Server;
pub use tailscaled::{Tailscaled, TailscaledOptions};
pub use wireguard_go::{WireguardGo, WireguardPeer};
