//! A process inside a host: its output goes to a file, and it ends with its value.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::space::Space;
use crate::{registry, wait};

/// Time that a process gets to end by itself after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Time that a program which ends by itself gets. Far more than any needs: a hung one shall fail its own test, not keep
/// all the others waiting.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// A running process, leader of its own process group, so that Ctrl-C reaches the test first.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: i32,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in `space`. Only `PATH` and what the command sets itself is in its environment.
    pub(crate) fn spawn(space: &Space, name: &str, log: &Path, mut command: Command) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        let child = space.run(move || command.spawn()).with_context(|| format!("start {name}"))?;
        let pid = i32::try_from(child.id())?;
        registry::note_process(pid);
        Ok(Self { name: name.to_owned(), pid, child: Mutex::new(child), log: log.to_owned() })
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// All that it has written so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The file that its output goes to.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Waits until its output holds `text`.
    pub fn wait_for_log(&self, text: &str, limit: Duration) -> Result<()> {
        let what = format!("{}: {text:?} in {}", self.name, self.log.display());
        wait::until(&what, limit, || self.log().contains(text).then_some(()))
    }

    /// Its exit status, if it has ended.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().ok().flatten()
    }

    /// Sends a signal to it and its children.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        killpg(Pid::from_raw(self.pid), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Asks it to end (SIGTERM) and waits.
    pub fn stop(&self) -> Result<ExitStatus> {
        if let Some(status) = self.exit_status() {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        let ended = wait::until(&format!("{} ends", self.name), STOP_LIMIT, || self.exit_status());
        if ended.is_ok() {
            registry::forget_process(self.pid);
        }
        ended
    }

    /// Ends it at once (SIGKILL), as a crash or a power cut would.
    pub fn kill(&self) {
        // A process that is already gone needs no signal.
        let _ = self.signal(Signal::SIGKILL);
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
        registry::forget_process(self.pid);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !registry::is_kept() {
            self.kill();
        }
    }
}

/// A command with an empty environment but for `PATH`, so that proxies and the like of the machine stay outside.
pub(crate) fn bare_command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Runs `command` inside to its end; kills it, and fails, when that takes longer than [`RUN_LIMIT`].
pub(crate) fn output(space: &Space, mut command: Command) -> Result<Output> {
    let name = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = space.run(move || command.spawn()).with_context(|| format!("run {name}"))?;
    // What it writes is read while it runs: a full pipe would stop it.
    let stdout = read_all(child.stdout.take());
    let stderr = read_all(child.stderr.take());
    let end = Instant::now() + RUN_LIMIT;
    let mut take = |receiver: &mpsc::Receiver<Vec<u8>>| {
        receiver.recv_timeout(end.saturating_duration_since(Instant::now())).or_else(|_| {
            child.kill()?;
            child.wait()?;
            bail!("{name} did not end within {RUN_LIMIT:?}")
        })
    };
    let (stdout, stderr) = (take(&stdout)?, take(&stderr)?);
    let status = child.wait()?;
    Ok(Output { status, stdout, stderr })
}

/// Reads to the end in a thread of its own.
fn read_all(source: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source
            && source.read_to_end(&mut bytes).is_ok()
        {
            // Nobody waits any more after the limit.
            let _ = sender.send(bytes);
        }
    });
    receiver
}
