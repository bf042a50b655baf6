//! One thread that lives in a network namespace and, for hosts, in a mount and host-name namespace of its own.
//!
//! Namespaces belong to threads: what runs on this thread, and every thread and process started from it, is inside;
//! the rest of the test process stays outside. No code of ours runs between fork and exec.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use tsrs_lab_control::ThreadHook;

use crate::command::run;
use crate::registry;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it.
#[derive(Debug)]
pub struct Space {
    namespace: String,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What a host sees instead of the machine's own files.
#[derive(Clone, Debug)]
pub(crate) struct HostView {
    /// Host name.
    pub(crate) name: String,
    /// Folder whose `run` and `lib` become `/run` and `/var/lib`, and which holds what is written to `/etc`.
    pub(crate) folder: PathBuf,
    /// Content of `/etc/resolv.conf`.
    pub(crate) resolv_conf: String,
}

impl Space {
    /// A new namespace with loopback up; with a view it is a host's.
    pub(crate) fn new(namespace: String, view: Option<HostView>) -> Result<Self> {
        registry::note_namespace(&namespace);
        run("ip", &["netns", "add", &namespace])?;
        run("ip", &["-n", &namespace, "link", "set", "lo", "up"])?;
        let (jobs, inbox) = channel::<Job>();
        let (ready, entered) = channel();
        let path = path_of(&namespace);
        let thread = std::thread::Builder::new().name(namespace.clone()).spawn(move || {
            let entry = enter(&path).and_then(|()| view.as_ref().map_or(Ok(()), become_host));
            let failed = entry.is_err();
            if ready.send(entry).is_err() || failed {
                return;
            }
            for job in inbox {
                job();
            }
        })?;
        // Built first, so that a failure below removes the namespace.
        let space = Self { namespace, jobs: Some(jobs), thread: Some(thread) };
        entered.recv().context("the namespace's thread ended")??;
        Ok(space)
    }

    /// Its name, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Runs `job` inside and waits for it. A panic goes on in the caller.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let job: Job = Box::new(move || {
            // The receiver is gone only if the caller's thread is; then nobody wants the result.
            let _ = done.send(catch_unwind(AssertUnwindSafe(job)));
        });
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        match (sent, result.recv()) {
            (Some(Ok(())), Ok(Ok(value))) => value,
            (_, Ok(Err(panic))) => resume_unwind(panic),
            // The thread lives as long as this value and catches panics.
            (_, _) => panic!("the thread of namespace {} is gone", self.namespace),
        }
    }

    /// Starts a thread inside.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let name = name.to_owned();
        Ok(self.run(move || std::thread::Builder::new().name(name).spawn(job))?)
    }

    /// Makes the threads of an in-process server start inside.
    pub fn thread_hook(&self) -> Result<ThreadHook> {
        let path = path_of(&self.namespace);
        let namespace = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let name = self.namespace.clone();
        Ok(ThreadHook::new(move || {
            if let Err(error) = setns(&namespace, CloneFlags::CLONE_NEWNET) {
                // Going on outside would open sockets on the machine itself.
                panic!("enter network namespace {name}: {error}");
            }
        }))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if !registry::is_kept() {
            registry::remove_namespace(&self.namespace);
        }
    }
}

fn path_of(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

fn enter(path: &Path) -> Result<()> {
    let namespace = File::open(path).with_context(|| format!("open {}", path.display()))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
    // Also parts from the file-system state of the other threads, without which no mount is private.
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).context("own mounts and host name")?;
    mount_at(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    // The interfaces of this namespace.
    mount_at(Some(Path::new("lab")), Path::new("/sys"), Some("sysfs"), MsFlags::empty(), None)
}

fn become_host(view: &HostView) -> Result<()> {
    nix::unistd::sethostname(&view.name).context("set the host name")?;
    let [upper, work, run, lib] = ["etc", ".etc-work", "run", "lib"].map(|name| view.folder.join(name));
    for folder in [&upper, &work, &run, &lib] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    // Whatever stands there on the machine, a link included, the host has a plain file that it may replace.
    fs::write(upper.join("resolv.conf"), &view.resolv_conf)?;
    fs::write(upper.join("hostname"), format!("{}\n", view.name))?;
    let layers = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    mount_at(
        Some(Path::new("overlay")),
        Path::new("/etc"),
        Some("overlay"),
        MsFlags::empty(),
        Some(&layers),
    )?;
    mount_at(Some(&lib), Path::new("/var/lib"), None, MsFlags::MS_BIND, None)?;
    mount_at(Some(&run), Path::new("/run"), None, MsFlags::MS_BIND, None)
}

fn mount_at(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<()> {
    mount(source, target, kind, flags, data).with_context(|| format!("mount over {}", target.display()))
}
