//! What runs on hosts: our agent, the real `tailscaled`, headscale.

mod agent;
mod headscale;
mod tailscaled;

pub use agent::{Agent, UpArgs, agent_binary};
pub use headscale::{Headscale, HeadscaleKey, HeadscaleNode};
pub use tailscaled::{Tailscaled, TailscaledOptions};
