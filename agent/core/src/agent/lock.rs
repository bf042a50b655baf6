//! Tailnet Lock: the chain of the account, and what may be seen of its netmap.

mod commands;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;
use tsrs_base_types::{LockPrivate, LockPublic, NodePublic};
use tsrs_control_netmap::{Change, Netmap};
use tsrs_control_tka::{AumHash, Authority, ExpectedAuthority, NodeKeySignature, Pin, State};

use super::{Action, Agent, ControlAction, Now};
use crate::lock::{Doors, Entry, Hidden, Keeper, KeeperError, LockAnswer, Rules, Stored, Wish};
pub use commands::LockCommandError;

/// How long after a failure the chain is written again.
const STORE_RETRY: Duration = Duration::from_secs(30);

/// What belongs to the lock of the account in use.
#[derive(Debug, Default)]
pub(super) struct LockState {
    /// The netmap as control sent it.
    pub(super) full: Option<Arc<Netmap>>,
    pub(super) keeper: Keeper,
    doors: Doors,
    /// What the lock says of our own key, and at which head that was looked at.
    own: Option<(AumHash, Result<OwnKey, String>)>,
    /// The head that control was told last.
    told_head: String,
    /// When the whole chain is written again.
    store_at: Option<Instant>,
}

/// Our own key, where it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnKey {
    /// Anybody could sign another key in its place (Tailnet Lock sheet §21, trap 19).
    pub anybody_may_rotate: bool,
}

/// Where the lock stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Off,
    /// The user has switched it off on this node.
    DisabledHere,
    /// One was announced and is not verified; peers from before stay.
    Announced,
    /// One is demanded, or was verified before, and no chain is verified; nobody is admitted.
    Shut,
    /// Its chain is verified.
    Verified,
}

/// The lock as readers see it.
#[derive(Clone, Debug)]
pub struct LockView {
    /// Where it stands.
    pub standing: Standing,
    /// Why it stands there, or what control did that has no effect.
    pub error: Option<String>,
    /// The lock that is remembered.
    pub pin: Option<Pin>,
    /// Whom it trusts.
    pub state: Option<State>,
    /// Whether it signs our own key; `None` while that is not known.
    pub own: Option<Result<OwnKey, String>>,
    /// The netmap with the peers that are not seen; `None` before the first.
    pub full: Option<Arc<Netmap>>,
    /// The peers that are not seen, with the reason.
    pub hidden: Arc<Hidden>,
}

impl LockState {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.keeper.retry_at(), self.store_at].into_iter().flatten().min()
    }

    /// What control wants; from the cache, what it wanted.
    fn wish(&self) -> Wish {
        let Some(netmap) = self.full.as_ref().filter(|netmap| netmap.lock_wanted()) else { return Wish::Off };
        Wish::On(netmap.lock_head().unwrap_or_default().to_owned())
    }
}

impl<R: CryptoRngCore> Agent<R> {
    /// The account is left, and its lock with it.
    pub(super) fn leave_lock(&mut self) {
        self.lock = LockState::default();
    }

    pub(super) fn load_lock(&mut self, stored: Stored) {
        self.lock.keeper = Keeper::load(&self.state.profiles.current().login.lock, stored);
    }

    /// The head of the verified chain, base32; empty without one.
    pub(super) fn lock_head(&self) -> String {
        self.lock.keeper.authority().map(|authority| authority.head().to_string()).unwrap_or_default()
    }

    fn lock_rules(&self) -> Rules {
        let prefs = &self.state.profiles.current().prefs;
        // A demand that cannot be read is met by nothing.
        let nothing = ExpectedAuthority::Genesis(AumHash::from_bytes([0; 32]));
        let expected = match prefs.lock_pin.as_str() {
            "" => None,
            text => Some(ExpectedAuthority::parse(text).unwrap_or(nothing)),
        };
        Rules { required: prefs.lock_required, expected }
    }

    /// Lets the peers of the netmap in that may come in, and takes out the others. `changes` are those of the netmap; gives those of
    /// what is seen of it.
    pub(super) fn pass_doors(&mut self, changes: Vec<Change>, now: Now) -> Vec<Change> {
        let Some(full) = self.lock.full.clone() else { return Vec::new() };
        let (wish, rules) = (self.lock.wish(), self.lock_rules());
        self.note_own_signature(&full, &changes);
        let LockState { keeper, doors, .. } = &mut self.lock;
        let entry = keeper.entry(&wish, &self.state.profiles.current().login.lock, &rules);
        let in_use = self.tunnel.is_live();
        let (view, changes) = doors.pass(entry, &full, changes, self.netmap.as_ref(), in_use);
        self.adopt_view(view, &changes, now);
        changes
    }

    /// What is seen may be something else now, although the netmap is the same.
    pub(super) fn reconsider_doors(&mut self, now: Now) {
        let changes = self.pass_doors(Vec::new(), now);
        if let Some(view) = self.netmap.clone().filter(|_| !changes.is_empty()) {
            self.tell_netmap(&view, &changes, false);
        }
    }

    fn note_own_signature(&mut self, full: &Netmap, changes: &[Change]) {
        let Some(authority) = self.lock.keeper.authority() else {
            self.lock.own = None;
            return;
        };
        let known = self.lock.own.as_ref().is_some_and(|(head, _)| *head == authority.head());
        if !known || changes.contains(&Change::SelfNode) {
            let node = full.self_node();
            let signature = &node.key_signature.0;
            let verdict = match signature.is_empty() {
                true => Err("its node key is not signed".to_owned()),
                false => {
                    let decoded = NodeKeySignature::decode(signature);
                    let anybody_may_rotate = decoded.is_ok_and(|decoded| decoded.is_wrapped_by_anybody());
                    let verdict = authority.authorize(node.key, signature);
                    verdict.map(|_| OwnKey { anybody_may_rotate }).map_err(|error| error.to_string())
                }
            };
            self.lock.own = Some((authority.head(), verdict));
        }
    }

    /// Asks control what is to be asked, tells it our head, and writes what is to be written.
    pub(super) fn settle_lock(&mut self, now: Now) {
        let profile = self.state.profiles.current();
        let mut steps = self.lock.keeper.take_steps();
        if self.lock.store_at.take_if(|at| *at <= now.mono).is_some() {
            steps = self.lock.keeper.all_steps();
        }
        if !steps.is_empty() && profile.is_saved() {
            let profile_id = profile.meta.id.clone();
            self.actions.push_back(Action::StoreLock { profile_id, steps });
        }
        if !self.control_running {
            return;
        }
        let from_control = self.lock.full.as_ref().is_some_and(|netmap| !netmap.is_cached());
        if from_control {
            let (wish, known) = (self.lock.wish(), &profile.login.lock);
            if let Some((number, call)) = self.lock.keeper.poll_call(&wish, known, now.mono) {
                self.control(ControlAction::Lock { number, call });
            }
        }
        let head = self.lock_head();
        if head != self.lock.told_head {
            self.lock.told_head.clone_from(&head);
            self.control(ControlAction::LockHead(head));
        }
    }

    /// A lock was promised: nobody comes in before it is verified.
    pub(super) fn await_lock(&mut self, now: Now) {
        let known = &mut self.state.profiles.current_mut().login.lock;
        known.awaited |= known.lock.is_none();
        self.reconsider_doors(now);
        self.save();
    }

    /// Takes what control answered to [`ControlAction::Lock`], or why it could not be asked.
    pub fn handle_lock_answer(&mut self, number: u64, answer: Result<LockAnswer, String>, now: Now) {
        let rules = self.lock_rules();
        let known = &mut self.state.profiles.current_mut().login.lock;
        let before = known.clone();
        let next = self.lock.keeper.handle_answer(number, answer, known, &rules, (now.mono, now.wall));
        let changed = *known != before;
        if let Some((number, call)) = next {
            self.control(ControlAction::Lock { number, call });
        }
        self.note_lock_changed(changed, now);
    }

    /// What followed from a change of the chain: it is written before the state file that names its head.
    fn note_lock_changed(&mut self, known_changed: bool, now: Now) {
        let profile = self.state.profiles.current_mut();
        if known_changed && profile.login.lock.lock.is_none() {
            // What was demanded of the first lock was met; the demand for some lock stays.
            profile.prefs.lock_pin.clear();
            self.tell_prefs();
        }
        self.reconsider_doors(now);
        self.settle_lock(now);
        if known_changed {
            self.save();
        }
        self.settle(now);
    }

    /// The folder of the chain was written, or why it was not. What is missing is written again after a while.
    pub fn handle_lock_stored(&mut self, result: Result<(), String>, now: Now) {
        self.lock.store_at = result.is_err().then(|| now.mono + STORE_RETRY);
        self.note_problem(crate::health::Problem::LockStore, result.err().as_deref(), now);
    }

    /// The lock as readers see it now.
    pub(super) fn lock_view(&self) -> LockView {
        let known = &self.state.profiles.current().login.lock;
        let keeper = &self.lock.keeper;
        let entry = keeper.entry(&self.lock.wish(), known, &self.lock_rules());
        let standing = match entry {
            Entry::Signed(..) => Standing::Verified,
            Entry::None => Standing::Shut,
            Entry::Announced => Standing::Announced,
            Entry::Free if keeper.is_off_here(known) => Standing::DisabledHere,
            Entry::Free => Standing::Off,
        };
        LockView {
            standing,
            error: keeper.error().map(KeeperError::to_string),
            pin: known.lock.as_ref().map(|lock| lock.pin),
            state: keeper.authority().map(Authority::state).cloned(),
            own: self.lock.own.as_ref().map(|(_, verdict)| verdict.clone()),
            full: self.lock.full.clone(),
            hidden: Arc::clone(self.lock.doors.hidden()),
        }
    }

    /// What the user should know: peers are kept out, control was refused something, this node is locked out, its signature lets anybody
    /// take its place.
    pub(super) fn lock_problems(&self) -> [Option<String>; 4] {
        let view = self.lock_view();
        let with_error = |text: &str| match &view.error {
            Some(error) => format!("{text}; {error}"),
            None => text.to_owned(),
        };
        let unverified = match view.standing {
            Standing::Off | Standing::DisabledHere | Standing::Verified => None,
            Standing::Announced => {
                Some(with_error("a lock was announced, and only peers that were there before stay"))
            }
            Standing::Shut if view.pin.is_some() => {
                Some(with_error("the chain of the lock that was verified before is not here"))
            }
            Standing::Shut => Some(with_error("the settings or the auth key demand a lock")),
        }
        .filter(|_| self.lock.full.is_some());
        let verified = view.standing == Standing::Verified;
        let passing = matches!(self.lock.keeper.error(), Some(KeeperError::Call(_)));
        let refused = view.error.filter(|_| verified && !passing);
        let own = self.lock.full.as_ref().map(|netmap| netmap.self_node().key);
        let lock_key = self.state.profiles.current().login.lock_key.as_ref().map(LockPrivate::public);
        let signing = own.map(|key| sign_command(key, lock_key.unwrap_or_default()));
        let (mut locked_out, mut weak) = (None, None);
        if let (Some(command), Some(verdict), true) = (signing, view.own, verified) {
            match verdict {
                Err(reason) => {
                    let run = format!("On a node with a trusted key, run: {command}");
                    locked_out = Some(format!("This node is locked out by Tailnet Lock: {reason}. {run}"));
                }
                Ok(own) => weak = own.anybody_may_rotate.then_some(command),
            }
        }
        [unverified, refused, locked_out, weak]
    }
}

/// What has to be run where a node key is to be signed.
fn sign_command(key: NodePublic, lock_key: LockPublic) -> String {
    format!("tailscale lock sign {key} {}", lock_key.cli_text())
}
