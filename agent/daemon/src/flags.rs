//! Flags of the daemon, in tailscaled's own names and in Go's spelling: one dash or two, `--name value` or `--name=value`.

use std::ffi::OsString;
use std::path::PathBuf;

use tsrs_platform_api::Instance;
use tsrs_platform_api::instance::DEFAULT_UDP_PORT;

/// What `--help` prints, and what stands behind a usage error.
pub(crate) const USAGE: &str = "\
Usage: tsrs-agent daemon [flags]

  --instance N      number of this agent on its host, 0 to 3 (default 0); each has its own TUN, table, marks and paths
  --statedir DIR    directory for all state (default /var/lib/tsrs-agent)
  --state FILE      state file (default tsrs-agent.state in the state directory)
  --socket PATH     LocalAPI socket (default /run/tsrs-agent/tailscaled.sock)
  --tun NAME        name of the tunnel interface (default tailscale0)
  --port N          UDP port for WireGuard and peer-to-peer traffic; 0 = any (default 41641)
  --config FILE     configuration file to take the settings from
  --ca-file FILE    further trusted certificates for the control server and relays, in PEM
  --verbose N       log level: 0 = INFO, 1 = DEBUG, 2 = TRACE; the variable TSRS_LOG takes a finer filter
  --cleanup         undo what a dead predecessor left behind, then exit
  --import FILE     take the login over from a state file of tailscaled, which must not run; used only while there is
                    no state of our own

The variable TSRS_DISABLE=NAME,NAME... switches off what makes the tunnel faster, should it ever be at fault: tun-tso, tun-uso,
tun-tcp-gro, tun-udp-gro, udp-gso, udp-gro, equal-tail (help of the kernel), simd-cipher (vector instructions), all.
";

/// Flags as given, with their defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    /// Number of this agent on its host.
    pub(crate) instance: Instance,
    /// Directory for all state.
    pub(crate) state_dir: PathBuf,
    /// The state file.
    pub(crate) state_file: PathBuf,
    /// The LocalAPI socket.
    pub(crate) socket: PathBuf,
    /// Whether `socket` is the default, so that the official path is served too.
    pub(crate) socket_is_default: bool,
    /// Name of the tunnel interface.
    pub(crate) tun: String,
    /// UDP port that is tried first; 0 = any.
    pub(crate) port: u16,
    /// Whether the port was given.
    pub(crate) port_is_fixed: bool,
    /// Configuration file.
    pub(crate) config: Option<PathBuf>,
    /// Further trusted certificates.
    pub(crate) ca_file: Option<PathBuf>,
    /// 0 = INFO, 1 = DEBUG, 2 and more = TRACE.
    pub(crate) verbose: u8,
    /// Undo and exit.
    pub(crate) cleanup: bool,
    /// State file of tailscaled to take the login from.
    pub(crate) import: Option<PathBuf>,
}

/// Why the command line was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    /// Help was asked for.
    #[error("help requested")]
    Help,
    /// A flag that does not exist.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// A flag without its value.
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// A value that cannot be.
    #[error("invalid value {value:?} for flag -{flag}: {reason}")]
    Value {
        /// The flag.
        flag: String,
        /// What was given.
        value: String,
        /// Why not.
        reason: String,
    },
    /// Something that is no flag.
    #[error("unexpected argument {0:?}")]
    Argument(String),
}

#[derive(Default)]
struct Given {
    instance: Instance,
    state_dir: Option<PathBuf>,
    state_file: Option<PathBuf>,
    socket: Option<PathBuf>,
    tun: Option<String>,
    port: Option<u16>,
    config: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    verbose: u8,
    cleanup: bool,
    import: Option<PathBuf>,
}

impl Flags {
    /// Reads the arguments behind `daemon`.
    ///
    /// # Errors
    /// They are not understood, or help was asked for.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut given = Given::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let arg =
                arg.into_string().map_err(|arg| UsageError::Argument(arg.to_string_lossy().into_owned()))?;
            let Some(flag) =
                arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).filter(|flag| !flag.is_empty())
            else {
                return Err(UsageError::Argument(arg));
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "help" | "h" => return Err(UsageError::Help),
                "cleanup" => given.cleanup = parse_bool(name, inline)?,
                // Accepted because units of the official program name it: nothing is ever uploaded.
                "no-logs-no-support" => {
                    parse_bool(name, inline)?;
                }
                _ => {
                    let mut value = || match &inline {
                        Some(value) => Ok(value.clone()),
                        None => args
                            .next()
                            .and_then(|value| value.into_string().ok())
                            .ok_or_else(|| UsageError::NoValue(name.to_owned())),
                    };
                    given.set(name, &mut value)?;
                }
            }
        }
        given.complete()
    }
}

impl Given {
    fn set(
        &mut self,
        name: &str,
        value: &mut dyn FnMut() -> Result<String, UsageError>,
    ) -> Result<(), UsageError> {
        match name {
            "instance" => self.instance = parse(name, &value()?)?,
            "statedir" => self.state_dir = Some(value()?.into()),
            "state" => self.state_file = Some(value()?.into()),
            "socket" => self.socket = Some(value()?.into()),
            "tun" => self.tun = Some(parse_tun(name, value()?)?),
            "port" => self.port = Some(parse(name, &value()?)?),
            "config" => self.config = Some(value()?.into()),
            "ca-file" => self.ca_file = Some(value()?.into()),
            "verbose" => self.verbose = parse(name, &value()?)?,
            "import" => self.import = Some(value()?.into()),
            _ => return Err(UsageError::Unknown(name.to_owned())),
        }
        Ok(())
    }

    fn complete(self) -> Result<Flags, UsageError> {
        let beside_file =
            |file: &PathBuf| file.parent().map(PathBuf::from).filter(|dir| !dir.as_os_str().is_empty());
        let state_dir = self
            .state_dir
            .or_else(|| self.state_file.as_ref().and_then(beside_file))
            .unwrap_or_else(|| self.instance.state_dir());
        Ok(Flags {
            state_file: self.state_file.unwrap_or_else(|| state_dir.join("tsrs-agent.state")),
            state_dir,
            socket_is_default: self.socket.is_none(),
            socket: self.socket.unwrap_or_else(|| self.instance.socket()),
            tun: self.tun.unwrap_or_else(|| self.instance.tun_name()),
            port_is_fixed: self.port.is_some_and(|port| port != 0),
            port: self.port.unwrap_or(DEFAULT_UDP_PORT),
            instance: self.instance,
            config: self.config,
            ca_file: self.ca_file,
            verbose: self.verbose,
            cleanup: self.cleanup,
            import: self.import,
        })
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(flag: &str, value: &str) -> Result<T, UsageError> {
    value.parse().map_err(|error: T::Err| UsageError::Value {
        flag: flag.to_owned(),
        value: value.to_owned(),
        reason: error.to_string(),
    })
}

fn parse_bool(flag: &str, value: Option<String>) -> Result<bool, UsageError> {
    match value.as_deref() {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(value) => Err(UsageError::Value {
            flag: flag.to_owned(),
            value: value.to_owned(),
            reason: "parse error".to_owned(),
        }),
    }
}

/// Longest interface name: IFNAMSIZ without the final zero.
const MAX_TUN_NAME_LEN: usize = 15;

fn parse_tun(flag: &str, value: String) -> Result<String, UsageError> {
    let reason = if value == "userspace-networking" || value.starts_with("tap:") {
        "only kernel TUN devices are supported"
    } else if value.is_empty() || value.len() > MAX_TUN_NAME_LEN {
        "an interface name has 1 to 15 characters"
    } else if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        || value.starts_with('.')
    {
        "an interface name holds letters, digits, '-', '_' and '.'"
    } else {
        return Ok(value);
    };
    Err(UsageError::Value { flag: flag.to_owned(), value, reason: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Result<Flags, UsageError> {
        Flags::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn defaults_are_those_of_the_instance() {
        let zero = flags(&[]).unwrap();
        assert_eq!(zero.state_dir, PathBuf::from("/var/lib/tsrs-agent"));
        assert_eq!(zero.state_file, PathBuf::from("/var/lib/tsrs-agent/tsrs-agent.state"));
        assert_eq!(zero.socket, PathBuf::from("/run/tsrs-agent/tailscaled.sock"));
        assert_eq!((zero.tun.as_str(), zero.port, zero.socket_is_default), ("tailscale0", 41641, true));
        let two = flags(&["--instance=2"]).unwrap();
        assert_eq!(two.socket, PathBuf::from("/run/tsrs-agent-2/tailscaled.sock"));
        assert_eq!(two.tun, "tailscale2");
    }

    #[test]
    fn every_spelling_of_go_is_read() {
        for args in [
            &["--statedir", "/s", "--port", "0", "--verbose", "1", "--cleanup"][..],
            &["-statedir=/s", "-port=0", "-verbose=1", "-cleanup=true"],
        ] {
            let flags = flags(args).unwrap();
            assert_eq!(flags.state_file, PathBuf::from("/s/tsrs-agent.state"));
            assert_eq!((flags.port, flags.verbose, flags.cleanup), (0, 1, true));
        }
        assert!(!flags(&["--cleanup=false"]).unwrap().cleanup);
        assert_eq!(flags(&["--state=/x/y.state"]).unwrap().state_dir, PathBuf::from("/x"));
        assert!(flags(&["--no-logs-no-support"]).is_ok());
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(flags(&["--nope"]), Err(UsageError::Unknown("nope".into())));
        assert_eq!(flags(&["--port"]), Err(UsageError::NoValue("port".into())));
        assert_eq!(flags(&["up"]), Err(UsageError::Argument("up".into())));
        assert_eq!(flags(&["--help"]), Err(UsageError::Help));
        for bad in [
            "--port=70000",
            "--instance=4",
            "--tun=userspace-networking",
            "--tun=a b",
            "--tun=",
            "--cleanup=maybe",
        ] {
            assert!(matches!(flags(&[bad]), Err(UsageError::Value { .. })), "{bad}");
        }
    }

    #[test]
    fn usage_names_every_flag() {
        for flag in [
            "instance", "statedir", "state", "socket", "tun", "port", "config", "ca-file", "verbose",
            "cleanup", "import",
        ] {
            assert!(USAGE.contains(&format!("--{flag} ")), "{flag}");
        }
    }
}
