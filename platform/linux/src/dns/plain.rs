//! A `resolv.conf` that nobody owns: replaced while the agent runs, watched, and restored.
//!
//! Somebody who overwrites it (a DHCP client with new servers) is understood: the new file becomes the one that will be
//! restored, its servers the ones that questions are passed on to, and ours is put back. Somebody who does it again and
//! again, or signs the file as its owner, is not fought: the file stays theirs.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tsrs_platform_api::{DnsConfig, DnsEvent, EventSink, Instance, PlatformError, PlatformEvent, Result};

use crate::budget::Budget;
use crate::dns::detect;
use crate::dns::file::{self, is_ours, restore_resolv_conf};
use crate::dns::resolv_conf::{ResolvConf, render};
use crate::journal::Journal;
use crate::stop::{Stop, StopHandle};

/// A writer's steps (create, write, rename) are waited for together.
const SETTLE: Duration = Duration::from_millis(100);

/// The file and its watcher.
#[derive(Debug)]
pub(super) struct PlainFile {
    state: Arc<Mutex<State>>,
    _stop: StopHandle,
}

#[derive(Debug)]
struct State {
    path: PathBuf,
    instance: Instance,
    journal: Journal,
    /// What is asked for, and the text that says so; `None` while the file is not ours.
    applied: Option<(DnsConfig, String)>,
    /// The host's own configuration.
    base: ResolvConf,
    budget: Budget,
}

impl PlainFile {
    /// Starts watching the file; changes nothing.
    pub(super) fn start(
        instance: Instance,
        path: &Path,
        journal: Journal,
        sink: EventSink,
    ) -> io::Result<Self> {
        let (stop, handle) = Stop::new()?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let by_name = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE;
        inotify.add_watch(directory, by_name)?;
        let state = Arc::new(Mutex::new(State {
            path: path.to_owned(),
            instance,
            journal,
            applied: None,
            base: read(path),
            budget: Budget::new(Instant::now()),
        }));
        let watch = Watch { state: Arc::clone(&state), sink, inotify, path: path.to_owned() };
        let thread = std::thread::Builder::new().name("resolv-conf-watch".into());
        Ok(Self { state, _stop: handle.joining(thread.spawn(move || watch.run(&stop))?) })
    }

    /// Makes the file ask for `config`.
    pub(super) fn apply(&self, config: &DnsConfig) -> Result<()> {
        if !config.default_route && !config.match_domains.is_empty() {
            return Err(PlatformError::refused(
                "set the host's name resolution",
                "a plain resolv.conf cannot send only some domains to a server",
            ));
        }
        lock(&self.state).apply(config)
    }

    /// Puts the former file back.
    pub(super) fn restore(&self) -> Result<()> {
        lock(&self.state).restore()
    }

    /// The host's own configuration.
    pub(super) fn base(&self) -> ResolvConf {
        lock(&self.state).base.clone()
    }
}

impl State {
    fn apply(&mut self, config: &DnsConfig) -> Result<()> {
        if self.applied.is_none() && is_ours(&self.path, self.instance) {
            // A predecessor ended without restoring it.
            self.restore()?;
        }
        if self.applied.is_none() {
            self.base = read(&self.path);
        }
        let text = render(config, &self.base, self.instance);
        let unchanged = self.applied.as_ref().is_some_and(|(_, written)| *written == text);
        if !unchanged || !is_ours(&self.path, self.instance) {
            file::install(&self.path, &text, self.instance, &self.journal)?;
        }
        self.applied = Some((config.clone(), text));
        Ok(())
    }

    fn restore(&mut self) -> Result<()> {
        self.applied = None;
        if let Some(change) = self.journal.entries().resolv_conf {
            restore_resolv_conf(&change)
                .map_err(|cause| PlatformError::new(format!("restore {}", self.path.display()), cause))?;
            self.journal.update(|entries| entries.resolv_conf = None)?;
        }
        self.base = read(&self.path);
        Ok(())
    }

    /// Reacts to a change of the file, and says what to tell.
    fn note_change(&mut self, now: Instant) -> Vec<DnsEvent> {
        let text = fs::read_to_string(&self.path).ok();
        let Some((config, written)) = self.applied.clone() else {
            return self.note_base(read(&self.path)).into_iter().collect();
        };
        if text.as_deref() == Some(written.as_str()) {
            return Vec::new();
        }
        let theirs = text.as_deref().map(ResolvConf::parse);
        let link = fs::read_link(&self.path).ok();
        let owned = theirs.as_ref().is_some_and(|file| detect::is_owned(link, file, self.instance));
        if owned || self.budget.take(now).is_err() {
            let given_up =
                self.restore().err().map(|error| DnsEvent::RepairFailed { error: error.to_string() });
            return std::iter::once(DnsEvent::Contested).chain(given_up).collect();
        }
        let base = theirs.filter(|file| file.written_by.is_none()).and_then(|file| self.note_base(file));
        let text = render(&config, &self.base, self.instance);
        let outcome = file::install(&self.path, &text, self.instance, &self.journal);
        self.applied = Some((config, text));
        let told = match outcome {
            Ok(()) => DnsEvent::Repaired,
            Err(error) => DnsEvent::RepairFailed { error: error.to_string() },
        };
        [Some(told), base].into_iter().flatten().collect()
    }

    fn note_base(&mut self, base: ResolvConf) -> Option<DnsEvent> {
        let changed = base.servers() != self.base.servers();
        self.base = base;
        changed.then(|| DnsEvent::BaseChanged { nameservers: self.base.servers() })
    }
}

#[derive(Debug)]
struct Watch {
    state: Arc<Mutex<State>>,
    sink: EventSink,
    inotify: Inotify,
    path: PathBuf,
}

impl Watch {
    fn run(self, stop: &Stop) {
        let mut due = None;
        loop {
            // A mounted file is not written under its name in the directory, so it is watched by itself too. A watch
            // ends with its file; adding one that exists changes nothing.
            let _ = self.inotify.add_watch(&self.path, AddWatchFlags::IN_CLOSE_WRITE);
            match self.wait(stop, due) {
                Ok(Some(true)) => _ = due.get_or_insert_with(|| Instant::now() + SETTLE),
                Ok(Some(false)) => {}
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "changes of resolv.conf are no longer noticed");
                    return;
                }
            }
            if due.is_some_and(|due| due <= Instant::now()) {
                due = None;
                let events = lock(&self.state).note_change(Instant::now());
                for event in events {
                    tracing::info!(?event, "resolv.conf was changed by another program");
                    self.sink.tell(PlatformEvent::Dns(event));
                }
            }
        }
    }

    /// Whether the file was touched; `None` when the watch ends.
    fn wait(&self, stop: &Stop, due: Option<Instant>) -> io::Result<Option<bool>> {
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            let left = due.saturating_duration_since(Instant::now());
            // One millisecond more, so that rounding down does not make this spin.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [touched, stopped] = fds.map(|fd| fd.any().unwrap_or(false));
        if stopped {
            return Ok(None);
        }
        if !touched {
            return Ok(Some(false));
        }
        let name = self.path.file_name();
        // Events of the file's own watch have no name.
        let events = self.inotify.read_events()?;
        Ok(Some(events.iter().any(|event| event.name.is_none() || event.name.as_deref() == name)))
    }
}

fn read(path: &Path) -> ResolvConf {
    fs::read_to_string(path).map(|text| ResolvConf::parse(&text)).unwrap_or_default()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
