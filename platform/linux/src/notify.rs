//! Messages to the service manager (sd_notify(3)): one datagram of `KEY=value` lines.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Tells the service manager how the daemon is; does nothing where there is none.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment of the process says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub fn from_env() -> io::Result<Self> {
        let pid_matches = env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
        let watchdog = env::var("WATCHDOG_USEC").ok().filter(|_| pid_matches);
        Self::new(env::var_os("NOTIFY_SOCKET"), watchdog.as_deref())
    }

    fn new(path: Option<OsString>, watchdog_usec: Option<&str>) -> io::Result<Self> {
        let socket = match path {
            Some(path) if !path.is_empty() => Some((UnixDatagram::unbound()?, address(&path)?)),
            _ => None,
        };
        let watchdog = watchdog_usec
            .and_then(|text| text.parse().ok())
            .filter(|usec| *usec > 0)
            .map(Duration::from_micros);
        Ok(Self { socket, watchdog })
    }

    /// How often [`watchdog`](Self::watchdog) has to be called, if the service manager watches: half of its limit.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// The daemon is in service. `status` is shown by `systemctl status`.
    pub fn ready(&self, status: &str) -> io::Result<()> {
        self.send(&format!("READY=1\nSTATUS={}\n", one_line(status)))
    }

    /// What the daemon is doing, for `systemctl status`.
    pub fn status(&self, status: &str) -> io::Result<()> {
        self.send(&format!("STATUS={}\n", one_line(status)))
    }

    /// The daemon has begun to shut down.
    pub fn stopping(&self) -> io::Result<()> {
        self.send("STOPPING=1\n")
    }

    /// The daemon is alive.
    pub fn watchdog(&self) -> io::Result<()> {
        self.send("WATCHDOG=1\n")
    }

    fn send(&self, text: &str) -> io::Result<()> {
        if let Some((socket, address)) = &self.socket {
            socket.send_to_addr(text.as_bytes(), address)?;
        }
        Ok(())
    }
}

/// A path, or with `@` in front a name in the abstract namespace.
fn address(path: &OsStr) -> io::Result<SocketAddr> {
    match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path),
    }
}

/// A line break would start another key.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(server: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let len = server.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    #[test]
    fn messages_arrive_at_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let server = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.into()), None).unwrap();
        notifier.ready("up\nEXTRA=1").unwrap();
        assert_eq!(received(&server), "READY=1\nSTATUS=up EXTRA=1\n");
        notifier.stopping().unwrap();
        assert_eq!(received(&server), "STOPPING=1\n");
    }

    #[test]
    fn messages_arrive_at_an_abstract_name() {
        let name = format!("tsrs-notify-test-{}", std::process::id());
        let server = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notifier = Notifier::new(Some(format!("@{name}").into()), Some("3000000")).unwrap();
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_millis(1500)));
        notifier.watchdog().unwrap();
        assert_eq!(received(&server), "WATCHDOG=1\n");
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        for path in [None, Some(OsString::new())] {
            let notifier = Notifier::new(path, Some("0")).unwrap();
            assert_eq!(notifier.watchdog_interval(), None);
            notifier.ready("up").unwrap();
        }
    }
}
