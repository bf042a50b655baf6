//! Recognises a tailscaled that is running on this host.
//!
//! Instance 0 uses the same rules, table, marks and interface name as tailscaled, so both cannot be up at once.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tsrs_platform_api::PeerCredentials;

use crate::peer_cred::LinuxPeerCredentials;

/// Where tailscaled listens.
const SOCKETS: [&str; 2] = ["/run/tailscale/tailscaled.sock", "/var/run/tailscale/tailscaled.sock"];
/// The process name, as the kernel keeps it.
const PROCESS_NAME: &str = "tailscaled";

/// How a running tailscaled was recognised; the text is a reason for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunningTailscaled {
    /// It answers on its socket.
    Socket(PathBuf),
    /// A process of that name runs in this network namespace, with a TUN device of its own.
    Process(i32),
}

impl std::fmt::Display for RunningTailscaled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "tailscaled answers on {}", path.display()),
            Self::Process(pid) => write!(f, "tailscaled is running as process {pid}"),
        }
    }
}

/// The tailscaled that would be in the way of instance 0, if one is running in this network namespace.
///
/// A tailscaled in user-space networking mode holds no rules and is not in the way.
pub fn running_tailscaled() -> Option<RunningTailscaled> {
    let processes = processes(Path::new("/proc"));
    let answers = SOCKETS.iter().map(Path::new).find(|path| {
        // Our own agent offers itself at the same place. An unknown process (of another pid namespace) counts.
        UnixStream::connect(path).is_ok_and(|stream| {
            let pid = LinuxPeerCredentials.peer(stream.as_fd()).ok().and_then(|peer| peer.pid);
            let name =
                pid.filter(|pid| *pid > 0).map(|pid| process_name(&Path::new("/proc").join(pid.to_string())));
            let of_userspace = pid.is_some_and(|pid| processes.iter().any(|p| p.pid == pid && p.user_space));
            match name {
                Some(Ok(name)) => name == PROCESS_NAME && !of_userspace,
                Some(Err(_)) | None => true,
            }
        })
    });
    if let Some(path) = answers {
        return Some(RunningTailscaled::Socket(path.to_owned()));
    }
    processes
        .into_iter()
        .find(|process| !process.user_space && process.same_network)
        .map(|process| RunningTailscaled::Process(process.pid))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    user_space: bool,
    same_network: bool,
}

/// All processes named tailscaled. What cannot be read is left out: the process ended, or is not ours to see.
fn processes(proc: &Path) -> Vec<Process> {
    let own_network = fs::read_link(proc.join("thread-self/ns/net")).ok();
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            if process_name(&entry.path()).ok()? != PROCESS_NAME {
                return None;
            }
            // A process that has ended but is still listed has no command line.
            let command =
                fs::read(entry.path().join("cmdline")).ok().filter(|command| !command.is_empty())?;
            let network = fs::read_link(entry.path().join("ns/net")).ok();
            Some(Process {
                pid,
                user_space: command
                    .split(|byte| *byte == 0)
                    .any(|word| String::from_utf8_lossy(word).contains("userspace-networking")),
                // Where namespaces cannot be compared the process counts.
                same_network: network.is_none() || own_network.is_none() || network == own_network,
            })
        })
        .collect()
}

fn process_name(directory: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(directory.join("comm"))?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::testing::isolated;

    /// A process that is named tailscaled and waits for the end of its input.
    struct Impostor(Child);

    impl Impostor {
        fn new(arguments: &[&str]) -> Self {
            let path = Path::new("/run/tailscaled");
            if !path.exists() {
                fs::copy("/bin/sh", path).unwrap();
            }
            let mut command = Command::new(path);
            command.args(["-c", "echo up; read line"]).args(arguments);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut up = [0; 3];
            child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
            Self(child)
        }

        fn pid(&self) -> i32 {
            self.0.id().try_into().unwrap()
        }
    }

    impl Drop for Impostor {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_process_in_our_network_is_recognised_and_one_elsewhere_is_not() {
        isolated(|| {
            assert_eq!(running_tailscaled(), None);
            let impostor = Impostor::new(&[]);
            assert_eq!(running_tailscaled(), Some(RunningTailscaled::Process(impostor.pid())));
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            assert_eq!(running_tailscaled(), None);
        });
    }

    #[test]
    fn user_space_networking_is_not_in_the_way() {
        isolated(|| {
            let _impostor = Impostor::new(&["--tun=userspace-networking"]);
            assert_eq!(running_tailscaled(), None);
        });
    }

    #[test]
    fn our_own_agent_at_tailscaleds_socket_is_not_tailscaled() {
        isolated(|| {
            fs::create_dir("/run/tailscale").unwrap();
            let _listener = std::os::unix::net::UnixListener::bind(SOCKETS[0]).unwrap();
            assert_eq!(running_tailscaled(), None);
        });
    }
}
