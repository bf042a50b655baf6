//! What runs on hosts: our agent, the real `tailscaled`, headscale, wireguard-go.

mod agent;
mod any;
mod headscale;
mod server;
mod tailscaled;
mod wireguard;

pub use agent::{Agent, UpArgs, agent_binary};
pub use any::{Node, NodeKind};
pub use headscale::{Headscale, HeadscaleKey, HeadscaleNode};
pub use server::Server;
pub use tailscaled::{Tailscaled, TailscaledOptions};
pub use wireguard::{WireguardPeer, WireguardProgram};
