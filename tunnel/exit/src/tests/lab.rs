//! The namespace of a test, and what lies in it.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::BorrowedFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, UdpSocket};
use tsrs_platform_api::fake::FakeBinder;
use tsrs_platform_api::{ExitBinder, Instance};
use tsrs_platform_net::{DnsServers, Net, NetConfig, Proxies};

use super::programs::Program;

/// The destination.
pub(super) const ECHO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(11, 1, 2, 3), 7);

/// Marks as the agent does.
pub(super) struct Marker;

impl ExitBinder for Marker {
    fn mark_exit(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(setsockopt(&fd, sockopt::Mark, &Instance::ZERO.marks().exit)?)
    }
}

pub(super) fn net(ca_file: Option<&Path>) -> Net {
    Net::new(NetConfig {
        binder: Arc::new(FakeBinder::default()),
        proxies: Proxies::default(),
        ca_files: ca_file.map(Path::to_owned).into_iter().collect(),
        dns: DnsServers::default(),
        hosts_file: PathBuf::from("/no/hosts/file"),
    })
    .unwrap()
}

/// Runs a test with its proxy, in a namespace of its own.
pub(super) fn isolated<P: Program, F: Future<Output = ()>>(test: impl FnOnce(P) -> F + Send + 'static) {
    let Some(program) = P::find() else {
        skip(&format!("no {}", P::NAME));
        return;
    };
    in_namespace(move || {
        for address in ["11.0.0.7", "11.0.0.8", "11.1.2.3"] {
            run(&format!("ip address add {address}/32 dev lo"));
        }
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(tcp_echo(TcpListener::bind(ECHO).await.unwrap()));
            tokio::spawn(udp_echo(UdpSocket::bind(ECHO).await.unwrap()));
            let folder = tempfile::tempdir().unwrap();
            test(P::start(&program, folder.path()).await).await;
        });
    });
}

/// Runs a test on a thread with a network and a mount namespace of its own. Threads and programs that it starts are in them too.
pub(super) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI has to have it");
        skip("needs root, for a namespace of its own");
        return;
    }
    let thread = std::thread::Builder::new().name("isolated".into()).spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&Path>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        run("ip link set lo up");
        test();
    });
    if let Err(panic) = thread.unwrap().join() {
        resume_unwind(panic);
    }
}

async fn tcp_echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        });
    }
}

async fn udp_echo(socket: UdpSocket) {
    let mut buffer = vec![0; 65_536];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let _ = socket.send_to(&buffer[..len], from).await;
    }
}

pub(super) fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Says that the test of this thread is skipped, and writes it to the file that counts such tests.
fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    if let Some(path) = std::env::var_os("TSRS_SKIP_LOG")
        && let Ok(mut log) = File::options().create(true).append(true).open(path)
    {
        // The line below is said in any case.
        let _ = log.write_all(line.as_bytes());
    }
    // Written to the descriptor itself: the test runner captures what goes through the print macros.
    let _ = io::stderr().write_all(format!("SKIPPED: {line}").as_bytes());
}
