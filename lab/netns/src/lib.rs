//! Networks for tests and the demo: hosts, routers, NATs, delay and loss in network namespaces, and what runs on them.
//!
//! ```no_run
//! use std::time::Duration;
//! use tsrs_lab_control::{KeySpec, LabConfig};
//! use tsrs_lab_netns::{Topology, UpArgs};
//!
//! # fn main() -> anyhow::Result<()> {
//! let net = Topology::three_hosts().build()?;
//! let control = net.lab_control(LabConfig::default())?;
//! let key = control.create_key(KeySpec::reusable());
//! let a = net.host("a").agent(UpArgs::join(&control.url(), &key).trusting(net.ca_file()))?;
//! control.wait_online("a", Duration::from_secs(20))?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything needs root. Nothing of the machine is changed but for namespaces with names of this process; a host has
//! its own mounts, so that what a daemon writes to `/etc/resolv.conf`, `/run` and `/var/lib` stays with it
//! ([`MachineGuard`] proves it). All of it is removed when the [`Net`] is dropped, at a panic, at SIGINT and SIGTERM,
//! and by the next lab when this process was killed.
#![forbid(unsafe_code)]

mod capture;
mod command;
mod guard;
mod host;
mod nat;
mod net;
mod node;
mod process;
mod registry;
mod relay;
mod space;
pub mod tools;
mod topology;
pub mod traffic;
pub mod wait;

pub use capture::{Capture, Seen};
pub use guard::MachineGuard;
pub use host::Host;
pub use nat::Nat;
pub use net::{Net, Router};
pub use node::{
    Agent, Headscale, HeadscaleKey, HeadscaleNode, Node, NodeKind, Server, Tailscaled, TailscaledOptions,
    UpArgs, WireguardPeer, WireguardProgram, agent_binary,
};
pub use process::Process;
pub use registry::{keep, remove_kept, sweep};
pub use relay::Impairment;
pub use space::Space;
pub use topology::{Attach, HostSpec, RouterSpec, Topology};
