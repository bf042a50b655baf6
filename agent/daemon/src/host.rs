//! A thread that sets the host's network and name resolution, since those calls block.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tsrs_platform_api::{DnsConfig, DnsConfigurator, DnsStatus, Router, RouterConfig};

/// Most jobs that wait. A wanted state replaces the one that waits, so only questions of local clients can pile up.
const MAX_JOBS: usize = 64;

/// What the thread is asked to do.
enum Job {
    Router(u64, RouterConfig),
    Dns(u64, DnsConfig),
    FlushDns,
    DnsStatus(oneshot::Sender<DnsStatus>),
    Forwarding(oneshot::Sender<Option<String>>),
    Close(oneshot::Sender<()>),
}

/// What it tells; the number is that of the job.
#[derive(Debug)]
pub(crate) enum HostDone {
    /// With what works less well than asked.
    Router(u64, Result<(), String>, Vec<String>),
    Dns(u64, Result<(), String>),
    /// Why the advertised subnets are not reached; `None` if they are, or none is advertised.
    Forwarding(Option<String>),
}

/// A handle on the thread, which ends with [`Host::close`].
#[derive(Clone)]
pub(crate) struct Host(Arc<Jobs>);

#[derive(Default)]
struct Jobs {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    last_number: u64,
    closed: bool,
}

impl Host {
    /// Starts the thread; `tell` is called from it.
    pub(crate) fn start(
        router: Box<dyn Router>,
        dns: Box<dyn DnsConfigurator>,
        tell: impl Fn(HostDone) + Send + 'static,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let jobs = Arc::new(Jobs::default());
        let host = Self(Arc::clone(&jobs));
        let mut worker = Worker { router, dns, tell: Box::new(tell) };
        let thread = std::thread::Builder::new()
            .name("tsrs-host".to_owned())
            .spawn(move || while !worker.run(jobs.take()) {})?;
        Ok((host, thread))
    }

    /// Gives the number under which the result will be told.
    pub(crate) fn set_router(&self, config: RouterConfig) -> u64 {
        self.put(|waiting, number| {
            waiting.jobs.retain(|job| !matches!(job, Job::Router(..)));
            waiting.jobs.push_back(Job::Router(number, config));
        })
    }

    /// Gives the number under which the result will be told.
    pub(crate) fn set_dns(&self, config: DnsConfig) -> u64 {
        self.put(|waiting, number| {
            waiting.jobs.retain(|job| !matches!(job, Job::Dns(..)));
            waiting.jobs.push_back(Job::Dns(number, config));
        })
    }

    pub(crate) fn flush_dns(&self) {
        self.put(|waiting, _| {
            waiting.jobs.retain(|job| !matches!(job, Job::FlushDns));
            waiting.jobs.push_back(Job::FlushDns);
        });
    }

    /// Who owns name resolution, and the host's own servers.
    pub(crate) async fn dns_status(&self) -> Option<DnsStatus> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::DnsStatus(reply));
        answer.await.ok()
    }

    /// Why the host does not forward; `None` if it does.
    pub(crate) async fn forwarding_problem(&self) -> Option<String> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Forwarding(reply));
        answer.await.ok().flatten()
    }

    /// Gives everything back, names first.
    pub(crate) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        self.put(|waiting, _| {
            waiting.jobs.clear();
            waiting.jobs.push_back(Job::Close(reply));
            waiting.closed = true;
        });
        if done.await.is_err() {
            tracing::warn!("the host's settings were not given back; the next start will do it");
        }
    }

    /// A question; dropped, and so answered with nothing, when too many wait.
    fn ask(&self, job: Job) {
        self.put(|waiting, _| {
            if waiting.jobs.len() < MAX_JOBS {
                waiting.jobs.push_back(job);
            }
        });
    }

    fn put(&self, put: impl FnOnce(&mut Waiting, u64)) -> u64 {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.last_number += 1;
        let number = waiting.last_number;
        if !waiting.closed {
            put(&mut waiting, number);
        }
        self.0.came.notify_one();
        number
    }
}

impl Jobs {
    /// Waits for the next job.
    fn take(&self) -> Job {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match waiting.jobs.pop_front() {
                Some(job) => return job,
                None => waiting = self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

struct Worker {
    router: Box<dyn Router>,
    dns: Box<dyn DnsConfigurator>,
    tell: Box<dyn Fn(HostDone) + Send>,
}

impl Worker {
    fn forwarding_problem(&self) -> Option<String> {
        self.router.check_forwarding().err().map(|error| error.to_string())
    }

    /// Does one job; `true` after the last.
    fn run(&mut self, job: Job) -> bool {
        let text = |result: tsrs_platform_api::Result<()>| result.map_err(|error| error.to_string());
        match job {
            Job::Router(number, config) => {
                let result = text(self.router.apply(&config));
                (self.tell)(HostDone::Router(number, result, self.router.warnings()));
                let problem = (!config.advertised.is_empty()).then(|| self.forwarding_problem()).flatten();
                (self.tell)(HostDone::Forwarding(problem));
            }
            Job::Dns(number, config) => (self.tell)(HostDone::Dns(number, text(self.dns.apply(&config)))),
            Job::FlushDns => {
                if let Err(error) = self.dns.flush_caches() {
                    tracing::debug!(%error, "cached names were not flushed");
                }
            }
            // The caller may have left.
            Job::DnsStatus(reply) => drop(reply.send(self.dns.status())),
            Job::Forwarding(reply) => drop(reply.send(self.forwarding_problem())),
            Job::Close(reply) => {
                for result in [self.dns.close(), self.router.close()] {
                    if let Err(error) = result {
                        tracing::warn!(%error, "a setting of the host was not given back; the next start will do it");
                    }
                }
                // The caller may have given up.
                let _ = reply.send(());
                return true;
            }
        }
        false
    }
}
