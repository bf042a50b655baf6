//! The proxies: how each is configured and started.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use tokio::net::TcpStream;

/// How long a program may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Pause between looks whether it listens; nobody tells us.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Where the program is, and the folder of its package if that was only unpacked.
pub(super) struct Place {
    program: PathBuf,
    root: Option<PathBuf>,
}

impl Place {
    fn find(name: &str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed =
            std::env::split_paths(&path).map(|folder| Self { program: folder.join(name), root: None });
        let unpacked =
            std::env::var_os("TSRS_TEST_PROXIES").map(PathBuf::from).into_iter().flat_map(|root| {
                ["usr/bin", "usr/sbin"]
                    .map(|folder| Self { program: root.join(folder).join(name), root: Some(root.clone()) })
            });
        installed.chain(unpacked).find(|place| place.program.is_file())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(root) = &self.root {
            command.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// A file of the package.
    fn file(&self, path: &str) -> PathBuf {
        self.root.as_deref().unwrap_or(Path::new("/")).join(path)
    }
}

/// A proxy that can be started.
pub(super) trait Program: Sized + 'static {
    /// Its name.
    const NAME: &'static str;

    fn find() -> Option<Place> {
        Place::find(Self::NAME)
    }

    /// Starts it and waits until it listens.
    async fn start(place: &Place, folder: &Path) -> Self;
}

/// A running program, and those that it started; they end with this value.
struct Running(Child);

impl Running {
    async fn start(mut command: Command, listens_at: SocketAddrV4) -> Self {
        use std::os::unix::process::CommandExt as _;
        let mut running = Self(command.process_group(0).spawn().unwrap());
        let listens = async {
            while TcpStream::connect(listens_at).await.is_err() {
                assert!(running.0.try_wait().unwrap().is_none(), "the proxy ended at once");
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::time::timeout(START_LIMIT, listens).await.expect("the proxy does not listen");
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        // It may have ended by itself.
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

fn address(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new([11, 0, 0, 8].into(), port)
}

pub(super) struct Microsocks(#[expect(dead_code, reason = "ends with this value")] Running);

impl Microsocks {
    pub(super) fn url(&self) -> String {
        "socks5://11.0.0.8:1080".to_owned()
    }
}

impl Program for Microsocks {
    const NAME: &'static str = "microsocks";

    async fn start(place: &Place, _folder: &Path) -> Self {
        let mut command = place.command();
        command.args(["-i", "11.0.0.8", "-p", "1080", "-u", "user", "-P", "pass"]).stderr(Stdio::null());
        Self(Running::start(command, address(1080)).await)
    }
}

/// Port 1080 lets everybody in, port 1081 wants a login.
pub(super) struct Dante(#[expect(dead_code, reason = "end with this value")] [Running; 2]);

impl Dante {
    pub(super) fn url(&self) -> String {
        "socks5://11.0.0.8:1080".to_owned()
    }

    pub(super) fn url_with_login(&self) -> String {
        "socks5://11.0.0.8:1081".to_owned()
    }
}

/// `hunter2`, by `openssl passwd -6 -salt exit`.
const PASSWORD_HASH: &str =
    "$6$exit$4ov2i.YcelzN8Ii7dSRoqlfyO74v/vPZ24/L/7o6oOyMwPb8rlac/lOXRaJpRptyT3cSi1CnIkzae1JIAqX9b0";

impl Program for Dante {
    const NAME: &'static str = "danted";

    async fn start(place: &Place, folder: &Path) -> Self {
        add_user(folder);
        let mut running = Vec::new();
        for (port, method) in [(1080, "none"), (1081, "username")] {
            let config = folder.join(format!("danted-{port}.conf"));
            let text = format!(
                "logoutput: {0}/danted-{port}.log\ninternal: 11.0.0.8 port = {port}\nexternal: 11.0.0.8\nclientmethod: none\n\
                 socksmethod: {method}\nuser.privileged: root\nuser.unprivileged: nobody\n\
                 client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\nsocks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n",
                folder.display()
            );
            std::fs::write(&config, text).unwrap();
            let mut command = place.command();
            command.arg("-f").arg(config).arg("-p").arg(folder.join(format!("danted-{port}.pid")));
            command.stderr(Stdio::null());
            running.push(Running::start(command, address(port)).await);
        }
        Self(running.try_into().unwrap_or_else(|_| panic!("there are two")))
    }
}

/// A user of the system, in the mount namespace of this thread only.
fn add_user(folder: &Path) {
    for (name, line) in [
        ("passwd", "exit-user:x:4242:65534::/nonexistent:/usr/sbin/nologin\n".to_owned()),
        ("shadow", format!("exit-user:{PASSWORD_HASH}:19000:0:99999:7:::\n")),
    ] {
        let (real, copy) = (Path::new("/etc").join(name), folder.join(name));
        let mut text = std::fs::read_to_string(&real).unwrap();
        text.push_str(&line);
        std::fs::write(&copy, text).unwrap();
        mount(Some(&copy), &real, None::<&Path>, MsFlags::MS_BIND, None::<&Path>).unwrap();
    }
}

pub(super) struct Tinyproxy(#[expect(dead_code, reason = "ends with this value")] Running);

impl Tinyproxy {
    pub(super) fn url(&self) -> String {
        "http://11.0.0.8:8888".to_owned()
    }
}

impl Program for Tinyproxy {
    const NAME: &'static str = "tinyproxy";

    async fn start(place: &Place, folder: &Path) -> Self {
        let config = folder.join("tinyproxy.conf");
        let text = format!(
            "Port 8888\nListen 11.0.0.8\nTimeout 60\nBasicAuth user pass\nLogFile \"{0}/tinyproxy.log\"\nMaxClients 50\n",
            folder.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = place.command();
        command.arg("-d").arg("-c").arg(config).stderr(Stdio::null());
        Self(Running::start(command, address(8888)).await)
    }
}

pub(super) struct Squid {
    #[expect(dead_code, reason = "ends with this value")]
    running: Running,
    certificate: PathBuf,
}

impl Squid {
    pub(super) fn url(&self) -> String {
        "http://11.0.0.8:3128".to_owned()
    }

    pub(super) fn tls_url(&self) -> String {
        "https://11.0.0.8:3129".to_owned()
    }

    pub(super) fn certificate(&self) -> &Path {
        &self.certificate
    }
}

impl Program for Squid {
    const NAME: &'static str = "squid";

    async fn start(place: &Place, folder: &Path) -> Self {
        let pair = rcgen::generate_simple_self_signed(vec!["11.0.0.8".to_owned()]).unwrap();
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        // Its unprivileged half writes here.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder, open).unwrap();
        // `user:pass`, by `openssl passwd -apr1`.
        std::fs::write(folder.join("users"), "user:$apr1$exit$WcuFaVkbctYTlqH.HCJ8e.\n").unwrap();
        let text = format!(
            "http_port 11.0.0.8:3128\nhttps_port 11.0.0.8:3129 tls-cert={certificate} tls-key={key}\n\
             auth_param basic program {helper} {folder}/users\nauth_param basic children 1\nacl known proxy_auth REQUIRED\n\
             http_access allow known\nhttp_access deny all\ncache deny all\npid_filename none\naccess_log none\n\
             cache_log {folder}/cache.log\ncoredump_dir {folder}\nmime_table {mime}\nicon_directory {folder}\n\
             error_directory {errors}\nvisible_hostname proxy.test\npinger_enable off\nnetdb_filename none\n\
             shutdown_lifetime 0 seconds\nlogfile_daemon /bin/true\nunlinkd_program /bin/true\n",
            certificate = certificate.display(),
            key = key.display(),
            folder = folder.display(),
            helper = place.file("usr/lib/squid/basic_ncsa_auth").display(),
            errors = place.file("usr/share/squid-langpack/templates").display(),
            mime = place.file("usr/share/squid/mime.conf").display(),
        );
        let config = folder.join("squid.conf");
        std::fs::write(&config, text).unwrap();
        let mut command = place.command();
        command.arg("-N").arg("-f").arg(config).stderr(Stdio::null());
        let running = Running::start(command, address(3129)).await;
        Self { running, certificate }
    }
}
