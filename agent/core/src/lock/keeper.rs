//! The chain of a profile: where it stands, and how it follows control (Tailnet Lock sheet §13, §14).
//!
//! At most one call is under way. What control answers is verified before any of it counts; a chain that begins anew is put together
//! beside the one in use and takes its place only when it holds everything that was seen before.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tsrs_control_tailcfg::{TkaBootstrapResponse, TkaSyncOfferResponse, TkaSyncSendResponse};
use tsrs_control_tka::{
    Aum, AumHash, Authority, ChainError, CompactionRules, DecodeError, DisablementSecret, ExpectedAuthority,
    FilterPolicy, Graph, HashParseError, PinError, Storage, SyncError, SyncOffer, UpdateError, limits,
};

use super::doors::Entry;
use super::known::{Known, Lock};
use super::steps::{Recorder, StoreStep};

/// How long after a failure control is asked again; doubled with every failure in a row.
const RETRY: Duration = Duration::from_secs(15);
/// Longest pause between two attempts.
const MAX_RETRY: Duration = Duration::from_secs(600);
/// Shortest pause between two attempts, which news from control allow. A server that has news without end cannot have us verify without
/// end.
const MIN_RETRY: Duration = Duration::from_secs(2);

/// What the disk held of a chain, or why it could not be read.
pub type Stored = Result<Graph, String>;

/// What control says about the lock of the tailnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It wants one, and this is its head; empty if it tells none.
    On(String),
    /// It wants none.
    Off,
}

/// What the user demands of the first lock that this node meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Nobody comes in before a lock is verified, and nobody unsigned afterwards.
    pub required: bool,
    /// Which lock it has to be.
    pub expected: Option<ExpectedAuthority>,
}

impl Rules {
    /// Whether nobody comes in before a lock is verified.
    pub const fn is_closed(&self) -> bool {
        self.required || self.expected.is_some()
    }
}

/// A call to control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// For the first update, or for the secret that ends the lock at this head.
    Bootstrap(Option<AumHash>),
    /// What we have.
    Offer(SyncOffer),
    /// What control lacks.
    Send {
        /// Our head.
        head: AumHash,
        /// Encoded updates, parents first.
        updates: Vec<Vec<u8>>,
        /// A user made these changes just now.
        interactive: bool,
    },
}

/// The answer to a [`Call`] of the same name.
#[derive(Clone, Debug)]
pub enum LockAnswer {
    /// See [`Call::Bootstrap`].
    Bootstrap(TkaBootstrapResponse),
    /// See [`Call::Offer`].
    Offer(TkaSyncOfferResponse),
    /// See [`Call::Send`].
    Send(TkaSyncSendResponse),
}

/// Why the lock stands where it stood.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The files of the chain cannot be used.
    #[error(
        "the stored chain cannot be used ({0}); it is fetched again and compared with what was seen before"
    )]
    Stored(String),
    /// Control could not be asked.
    #[error("the control server could not be asked: {0}")]
    Call(String),
    /// Control answered another call.
    #[error("the control server's answer does not fit the question")]
    WrongAnswer,
    /// Control wants a lock and has no first update for it.
    #[error("the control server announces a lock and gives no first update for it")]
    NoGenesis,
    /// Something in an answer cannot be read.
    #[error("the control server sent an update that cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// A hash in an answer is none.
    #[error("the control server named something that is {0}")]
    Hash(#[from] HashParseError),
    /// More updates than are taken at once.
    #[error("the control server sent {0} updates at once, more than {max}", max = limits::MAX_INFORM_UPDATES)]
    TooMany(usize),
    /// The lock is not the one that is remembered or demanded.
    #[error("the control server presents another chain: {0}")]
    Pin(#[from] PinError),
    /// An update is not valid.
    #[error("the control server sent a chain that is not valid: {0}")]
    Update(#[from] UpdateError<Infallible>),
    /// The two chains have nothing in common.
    #[error("the control server presents another chain: {0}")]
    Sync(#[from] SyncError),
    /// The chain cannot be followed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Control stays behind.
    #[error("the control server stays at an older head, {theirs}, and does not take {ours}")]
    OlderHead {
        /// Its head.
        theirs: AumHash,
        /// Our head.
        ours: AumHash,
    },
    /// Control stays at a head that we do not know.
    #[error("the control server stays at another head, {theirs}, and does not take {ours}")]
    OtherHead {
        /// Its head.
        theirs: AumHash,
        /// Our head.
        ours: AumHash,
    },
    /// Control says that the lock is off.
    #[error(
        "the control server says that the lock is disabled, without a valid disablement secret; it stays on"
    )]
    NoSecret,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Keeper {
    chain: Option<Chain>,
    exchange: Option<Exchange>,
    /// Number of the last call, so that the answer to an older one is not taken for it.
    number: u64,
    /// What control was last asked about, and answered.
    settled: Option<Wish>,
    error: Option<KeeperError>,
    retry_at: Option<Instant>,
    /// When control was asked first in the exchange under way, or in the last one.
    asked_at: Option<Instant>,
    failures: u32,
    /// Control presents a lock that the user has not switched off here.
    presents_other: bool,
    steps: Vec<StoreStep>,
}

#[derive(Clone, Debug)]
struct Chain {
    authority: Authority,
    storage: Recorder,
}

/// What is under way.
#[derive(Debug)]
enum Exchange {
    /// The first update is asked for.
    Begin,
    /// The secret that ends the lock is asked for.
    End,
    /// The two heads are told. `draft` is a chain that is not in use yet.
    Compare { draft: Option<Box<Chain>> },
    /// Control is given what it lacks.
    Give,
}

impl Keeper {
    /// Takes what the disk held. A chain counts only if the lock is remembered and the chain holds the head that was seen last.
    pub fn load(known: &Known, stored: Stored) -> Self {
        let mut keeper = Self::default();
        let empty = stored.as_ref().is_ok_and(Graph::is_empty);
        match (&known.lock, stored) {
            (Some(lock), Ok(graph)) if !empty => match open(lock, graph) {
                Ok(chain) => keeper.chain = Some(chain),
                Err(error) => keeper.error = Some(KeeperError::Stored(error.to_string())),
            },
            (Some(_), Ok(_)) => keeper.error = Some(KeeperError::Stored("it is empty".to_owned())),
            (Some(_), Err(error)) => keeper.error = Some(KeeperError::Stored(error)),
            // A lock that ended while its files were being removed.
            (None, _) if !empty => keeper.steps.push(StoreStep::Clear),
            (None, _) => {}
        }
        keeper
    }

    /// The verified chain.
    pub fn authority(&self) -> Option<&Authority> {
        self.chain.as_ref().map(|chain| &chain.authority)
    }

    /// The stored updates of the verified chain.
    pub fn graph(&self) -> Option<&Graph> {
        self.chain.as_ref().map(|chain| chain.storage.graph())
    }

    /// What is wrong, if anything is.
    pub const fn error(&self) -> Option<&KeeperError> {
        self.error.as_ref()
    }

    /// Whether the user has switched the lock off here, as far as it is known which lock control presents.
    pub fn is_off_here(&self, known: &Known) -> bool {
        known.lock.is_none() && !known.disabled.is_empty() && !self.presents_other
    }

    /// How peers come in.
    pub fn entry(&self, wish: &Wish, known: &Known, rules: &Rules) -> Entry<'_> {
        match (self.authority(), wish) {
            (Some(authority), _) => {
                Entry::Signed(authority.state(), FilterPolicy { lock_required: rules.required })
            }
            (None, _) if known.lock.is_some() || known.awaited || rules.is_closed() => Entry::None,
            (None, Wish::On(_)) if !self.is_off_here(known) => Entry::Announced,
            (None, Wish::On(_) | Wish::Off) => Entry::Free,
        }
    }

    /// What has to be written, in this order.
    pub fn take_steps(&mut self) -> Vec<StoreStep> {
        std::mem::take(&mut self.steps)
    }

    /// The steps that write everything anew, after something could not be written.
    pub fn all_steps(&self) -> Vec<StoreStep> {
        self.chain.as_ref().map_or_else(|| vec![StoreStep::Clear], |chain| chain.storage.all())
    }

    /// When control shall be asked again.
    pub const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Control has said something: what failed before is tried soon.
    pub fn note_news(&mut self, now: Instant) {
        let soon = self.asked_at.map_or(now, |asked| asked + MIN_RETRY).max(now);
        self.retry_at = self.retry_at.map(|at| at.min(soon));
    }

    /// The connection to control is gone, and with it the call that was under way.
    pub fn interrupt(&mut self) {
        self.exchange = None;
        self.settled = None;
        self.retry_at = None;
        self.failures = 0;
    }

    /// The next call, if one is needed for what control wishes; with its number.
    pub fn poll_call(&mut self, wish: &Wish, known: &Known, now: Instant) -> Option<(u64, Call)> {
        if self.exchange.is_some() || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let again = self.retry_at.take().is_some();
        if !again && self.settled.as_ref() == Some(wish) {
            return None;
        }
        self.asked_at = Some(now);
        self.settled = Some(wish.clone());
        let (exchange, call) = match (wish, &self.chain, &known.lock) {
            (Wish::Off, _, None) => {
                self.error = None;
                return None;
            }
            (Wish::Off, _, Some(lock)) => (Exchange::End, Call::Bootstrap(Some(lock.pin.head))),
            (Wish::On(head), Some(chain), _) => {
                if *head == chain.authority.head().to_string() {
                    self.error = None;
                    return None;
                }
                let offer = chain.authority.sync_offer(chain.storage.graph());
                (Exchange::Compare { draft: None }, Call::Offer(offer))
            }
            (Wish::On(_), None, _) => (Exchange::Begin, Call::Bootstrap(None)),
        };
        Some(self.ask(exchange, call))
    }

    fn ask(&mut self, exchange: Exchange, call: Call) -> (u64, Call) {
        self.exchange = Some(exchange);
        self.number += 1;
        (self.number, call)
    }

    /// Takes the answer to the call with this number; gives the call that follows from it. After it `known` may be another.
    pub fn handle_answer(
        &mut self,
        number: u64,
        answer: Result<LockAnswer, String>,
        known: &mut Known,
        rules: &Rules,
        now: (Instant, Timestamp),
    ) -> Option<(u64, Call)> {
        if number != self.number {
            return None;
        }
        let exchange = self.exchange.take()?;
        let result = answer.map_err(KeeperError::Call).and_then(|answer| match (exchange, answer) {
            (Exchange::Begin, LockAnswer::Bootstrap(answer)) => self.begin(&answer, known, rules, now.1),
            (Exchange::End, LockAnswer::Bootstrap(answer)) => self.end(&answer, known).map(|()| None),
            (Exchange::Compare { draft }, LockAnswer::Offer(answer)) => {
                self.compare(draft, &answer, known, now.1)
            }
            (Exchange::Give, LockAnswer::Send(answer)) => self.given(&answer).map(|()| None),
            (_, _) => Err(KeeperError::WrongAnswer),
        });
        match result {
            Ok(Some((exchange, call))) => return Some(self.ask(exchange, call)),
            Ok(None) => {
                self.error = None;
                self.failures = 0;
            }
            Err(error) => {
                self.retry_at = Some(now.0 + (RETRY * (1 << self.failures.min(8))).min(MAX_RETRY));
                self.failures += 1;
                self.error = Some(error);
            }
        }
        None
    }

    /// Takes the first update of a lock. Nothing of it counts before control has told the rest of the chain.
    fn begin(
        &mut self,
        answer: &TkaBootstrapResponse,
        known: &Known,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<Option<(Exchange, Call)>, KeeperError> {
        if answer.genesis_aum.is_empty() {
            return Err(KeeperError::NoGenesis);
        }
        let genesis = Aum::decode(&answer.genesis_aum.0)?;
        match &known.lock {
            Some(lock) => lock.pin.check_genesis(&genesis)?,
            None => {
                let id = Authority::check_first(&genesis).map_err(PinError::from)?.id;
                self.presents_other = !known.disabled.contains(&id);
                if !self.presents_other {
                    return Ok(None);
                }
                if let Some(expected) = &rules.expected {
                    expected.check(&genesis)?;
                }
            }
        }
        let mut storage = Recorder::default();
        let authority = Authority::bootstrap(&mut storage, genesis, now)?;
        let offer = authority.sync_offer(storage.graph());
        let draft = Some(Box::new(Chain { authority, storage }));
        Ok(Some((Exchange::Compare { draft }, Call::Offer(offer))))
    }

    /// The lock ends if control knows the secret for it, and not otherwise.
    fn end(&mut self, answer: &TkaBootstrapResponse, known: &mut Known) -> Result<(), KeeperError> {
        let Some(lock) = &known.lock else { return Ok(()) };
        // Exposed to be compared with what the lock stores.
        let secret = answer.disablement_secret.expose();
        if secret.is_empty() {
            return Err(KeeperError::NoSecret);
        }
        let secret = DisablementSecret::from_bytes(secret.to_vec());
        let by_chain = self.authority().map(|authority| authority.state().is_ended_by(&secret));
        if !by_chain.unwrap_or_else(|| lock.is_ended_by(&secret)) {
            return Err(KeeperError::NoSecret);
        }
        known.lock = None;
        self.forget();
        Ok(())
    }

    fn compare(
        &mut self,
        draft: Option<Box<Chain>>,
        answer: &TkaSyncOfferResponse,
        known: &mut Known,
        now: Timestamp,
    ) -> Result<Option<(Exchange, Call)>, KeeperError> {
        let theirs = SyncOffer::parse(&answer.head, answer.ancestors.iter().map(String::as_str))?;
        if answer.missing_aums.len() > limits::MAX_INFORM_UPDATES {
            return Err(KeeperError::TooMany(answer.missing_aums.len()));
        }
        let is_new = draft.is_some();
        let Some(mut chain) = draft.map(|draft| *draft).or_else(|| self.chain.clone()) else {
            return Err(KeeperError::WrongAnswer);
        };
        // What control lacks follows from what we had before it told us anything.
        let lacking = match chain.authority.missing(chain.storage.graph(), &theirs) {
            Ok(lacking) => lacking.into_iter().map(|update| update.aum().encode()).collect(),
            // Beside a chain that is not ours yet, control is the one who knows more.
            Err(SyncError::NoIntersection) if is_new => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let updates =
            answer.missing_aums.iter().map(|update| Aum::decode(&update.0)).collect::<Result<_, _>>()?;
        chain.authority.inform(&mut chain.storage, updates, now)?;
        match &mut known.lock {
            Some(lock) => {
                lock.pin.check(&chain.authority, chain.storage.graph())?;
                lock.note(&chain.authority);
            }
            None => known.lock = Some(Lock::new(&chain.authority)),
        }
        known.awaited = false;
        let rules = CompactionRules::fitting(chain.storage.graph());
        // The chain in memory cannot fail to be written.
        let _: Result<bool, Infallible> = chain.authority.compact(&mut chain.storage, rules, now);
        if is_new {
            self.steps.push(StoreStep::Clear);
        }
        self.steps.append(&mut chain.storage.steps);
        let head = chain.authority.head();
        self.chain = Some(chain);
        if theirs.head == head {
            return Ok(None);
        }
        Ok(Some((Exchange::Give, Call::Send { head, updates: lacking, interactive: false })))
    }

    /// Control has what it lacked; its head should be ours now.
    fn given(&self, answer: &TkaSyncSendResponse) -> Result<(), KeeperError> {
        let theirs: AumHash = answer.head.parse()?;
        let Some(chain) = &self.chain else { return Err(KeeperError::WrongAnswer) };
        let ours = chain.authority.head();
        match chain.storage.graph().update(theirs) {
            Some(_) if theirs == ours => Ok(()),
            Some(_) => Err(KeeperError::OlderHead { theirs, ours }),
            None => Err(KeeperError::OtherHead { theirs, ours }),
        }
    }

    /// Takes updates that this node made and control has taken.
    pub fn adopt(
        &mut self,
        updates: Vec<Aum>,
        known: &mut Known,
        now: Timestamp,
    ) -> Result<(), UpdateError<Infallible>> {
        let Some(chain) = &mut self.chain else { return Ok(()) };
        chain.authority.inform(&mut chain.storage, updates, now)?;
        self.steps.append(&mut chain.storage.steps);
        if let Some(lock) = &mut known.lock {
            lock.note(&chain.authority);
        }
        Ok(())
    }

    /// Switches the lock off on this node. Says whether there was one, or one was awaited.
    pub fn disable_here(&mut self, known: &mut Known) -> bool {
        let disabled = known.disable_here();
        if disabled {
            self.forget();
            self.presents_other = false;
        }
        disabled
    }

    fn forget(&mut self) {
        self.chain = None;
        self.exchange = None;
        self.error = None;
        self.settled = None;
        self.steps = vec![StoreStep::Clear];
    }
}

fn open(lock: &Lock, graph: Graph) -> Result<Chain, KeeperError> {
    let authority = Authority::open(&graph)?;
    lock.pin.check(&authority, &graph)?;
    Ok(Chain { authority, storage: Recorder::new(graph) })
}
