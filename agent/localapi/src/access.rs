//! Who may call what: the table of endpoints and the rights of a caller (client sheet §2.1 and §2.2).
//!
//! The table follows tailscaled's behaviour as captured, method by method, with its status codes and texts. Where
//! tailscaled checks nothing but lets local users reach further than they need, we are stricter: `dial` needs the
//! write right. No row is laxer; a test compares each with the captured matrix.

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Any local user who can open the socket.
    Read,
    /// Root, the operator, or the user the daemon runs as.
    Write,
    /// As [`Self::Write`], or the user who may fetch certificates.
    WriteOrCert,
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Whether settings may be changed.
    pub write: bool,
    /// Whether certificates may be fetched.
    pub cert: bool,
}

impl Access {
    /// Whether it covers `right`.
    pub fn covers(self, right: Right) -> bool {
        match right {
            Right::Read => true,
            Right::Write => self.write,
            Right::WriteOrCert => self.write || self.cert,
        }
    }
}

/// Users with more than the read right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user the daemon runs as.
    pub daemon_uid: u32,
    /// The user named by the pref `OperatorUser`.
    pub operator_uid: Option<u32>,
    /// The user named by `TS_PERMIT_CERT_UID`.
    pub cert_uid: Option<u32>,
}

impl Identity {
    /// What the user at the other end of the socket may do; an unknown one may read.
    pub fn access(&self, peer_uid: Option<u32>) -> Access {
        let Some(uid) = peer_uid else { return Access::default() };
        Access {
            write: uid == 0 || uid == self.daemon_uid || Some(uid) == self.operator_uid,
            cert: Some(uid) == self.cert_uid,
        }
    }
}

/// One path of the API.
#[derive(Debug)]
pub struct Endpoint {
    /// The path below [`crate::PATH_PREFIX`]; a final `*` stands for one character or more.
    pub path: &'static str,
    methods: Methods,
    wrong_method: (u16, &'static str),
    denied: &'static str,
    order: Order,
}

#[derive(Debug)]
enum Methods {
    /// The method is not looked at.
    Any(Right),
    /// These only.
    Only(&'static [(&'static str, Right)]),
}

/// Which check comes first decides what a caller without rights learns about methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    RightFirst,
    MethodFirst,
}

/// A call that the table refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// One line for the body.
    pub text: &'static str,
}

impl Endpoint {
    /// The endpoint at a decoded path below [`crate::PATH_PREFIX`].
    pub fn at(path: &str) -> Option<&'static Self> {
        ENDPOINTS.iter().find(|endpoint| match endpoint.path.strip_suffix('*') {
            Some(start) => path.len() > start.len() && path.starts_with(start),
            None => path == endpoint.path,
        })
    }

    /// Whether a caller may make this call.
    ///
    /// # Errors
    /// The method is not offered or the caller lacks the right.
    pub fn check(&self, method: &str, access: Access) -> Result<(), Refusal> {
        let wrong_method = Refusal { status: self.wrong_method.0, text: self.wrong_method.1 };
        let denied = Refusal { status: 403, text: self.denied };
        let right = match self.methods {
            Methods::Any(right) => Some(right),
            Methods::Only(list) => list.iter().find(|(name, _)| *name == method).map(|(_, right)| *right),
        };
        match right {
            Some(right) if access.covers(right) => Ok(()),
            Some(_) => Err(denied),
            None if self.order == Order::RightFirst && !access.write => Err(denied),
            None => Err(wrong_method),
        }
    }
}

const fn any(path: &'static str, right: Right, denied: &'static str) -> Endpoint {
    Endpoint {
        path,
        methods: Methods::Any(right),
        wrong_method: (405, ""),
        denied,
        order: Order::MethodFirst,
    }
}

/// Open to every local user, some methods only.
const fn open(
    path: &'static str,
    methods: &'static [(&'static str, Right)],
    wrong: (u16, &'static str),
) -> Endpoint {
    Endpoint {
        path,
        methods: Methods::Only(methods),
        wrong_method: wrong,
        denied: "access denied",
        order: Order::MethodFirst,
    }
}

/// The right is checked before the method.
const fn guarded(
    path: &'static str,
    methods: &'static [(&'static str, Right)],
    wrong: (u16, &'static str),
    denied: &'static str,
) -> Endpoint {
    Endpoint { path, methods: Methods::Only(methods), wrong_method: wrong, denied, order: Order::RightFirst }
}

/// The method is checked before the right.
const fn shown(
    path: &'static str,
    methods: &'static [(&'static str, Right)],
    wrong: (u16, &'static str),
    denied: &'static str,
) -> Endpoint {
    Endpoint { path, methods: Methods::Only(methods), wrong_method: wrong, denied, order: Order::MethodFirst }
}

const GET: &[(&str, Right)] = &[("GET", Right::Read)];
const POST: &[(&str, Right)] = &[("POST", Right::Read)];
const GET_W: &[(&str, Right)] = &[("GET", Right::Write)];
const POST_W: &[(&str, Right)] = &[("POST", Right::Write)];

/// Every path that we answer.
pub const ENDPOINTS: &[Endpoint] = &[
    any("status", Right::Read, "status access denied"),
    shown(
        "prefs",
        &[("GET", Right::Read), ("HEAD", Right::Read), ("PATCH", Right::Write)],
        (405, "unsupported method"),
        "prefs write access denied",
    ),
    guarded("check-prefs", POST_W, (405, "unsupported method"), "checkprefs access denied"),
    guarded("start", POST_W, (400, "want POST"), "access denied"),
    guarded("login-interactive", POST_W, (400, "want POST"), "login access denied"),
    guarded("logout", POST_W, (400, "want POST"), "logout access denied"),
    guarded("reset-auth", POST_W, (405, "use POST"), "reset-auth modify access denied"),
    any("watch-ipn-bus", Right::Read, "watch ipn bus access denied"),
    guarded(
        "profiles/",
        &[("GET", Right::Write), ("PUT", Right::Write)],
        (405, "use GET or PUT"),
        "profiles access denied",
    ),
    guarded("profiles/current", GET_W, (405, "use GET"), "profiles access denied"),
    guarded(
        "profiles/*",
        &[("GET", Right::Write), ("POST", Right::Write), ("DELETE", Right::Write)],
        (405, "use POST or DELETE"),
        "profiles access denied",
    ),
    any("whois", Right::Read, "whois access denied"),
    open("ping", POST, (400, "want POST")),
    shown("dial", POST_W, (405, "POST required"), "access denied"),
    open("derpmap", GET, (400, "want GET")),
    open("services", GET, (405, "only GET allowed")),
    any("peer-by-id", Right::Read, "access denied"),
    any("user-profile", Right::Read, "access denied"),
    any("cert-domains", Right::Read, "access denied"),
    any("dns-config", Right::Read, "access denied"),
    shown("dns-osconfig", GET_W, (405, "only GET allowed"), "dns-osconfig dump access denied"),
    shown("dns-query", GET_W, (405, "only GET allowed"), "dns-query access denied"),
    any("cert/*", Right::WriteOrCert, "cert access denied"),
    shown(
        "serve-config",
        &[("GET", Right::Read), ("POST", Right::Write)],
        (405, "method not allowed"),
        "serve config denied",
    ),
    open("query-feature", POST, (405, "use POST")),
    open("suggest-exit-node", &[("GET", Right::Read), ("POST", Right::Read)], (405, "want POST")),
    shown("set-use-exit-node-enabled", POST_W, (405, "use POST"), "access denied"),
    any("check-ip-forwarding", Right::Read, "IP forwarding check access denied"),
    any("check-udp-gro-forwarding", Right::Read, "UDP GRO forwarding check access denied"),
    any("check-so-mark-in-use", Right::Read, "access denied"),
    guarded("set-expiry-sooner", POST_W, (405, "POST required"), "access denied"),
    guarded("reload-config", POST_W, (405, "use POST"), "access denied"),
    shown("shutdown", POST_W, (405, "only POST allowed"), "shutdown access denied"),
    any("metrics", Right::Write, "metric access denied"),
    open("netcheck", POST, (405, "want POST")),
    any("usermetrics", Right::Read, "access denied"),
    open("upload-client-metrics", POST, (405, "unsupported method")),
    open("bugreport", POST, (405, "only POST allowed")),
    any("id-token", Right::Write, "id-token access denied"),
    guarded("files/", GET_W, (400, "want GET to list files"), "file access denied"),
    guarded(
        "files/*",
        &[("GET", Right::Write), ("DELETE", Right::Write)],
        (400, "want GET or DELETE"),
        "file access denied",
    ),
    guarded(
        "file-put/*",
        &[("PUT", Right::Write), ("POST", Right::Write)],
        (400, "want PUT to put file"),
        "file access denied",
    ),
    open("file-targets", GET, (400, "want GET to list targets")),
    open("tka/status", GET, (405, "use GET")),
    open("tka/log", GET, (405, "use GET")),
    guarded("tka/init", POST_W, (405, "use POST"), "lock init access denied"),
    guarded("tka/sign", POST_W, (405, "use POST"), "lock sign access denied"),
    guarded("tka/modify", POST_W, (405, "use POST"), "tailnet-lock modify access denied"),
    guarded("tka/disable", POST_W, (405, "use POST"), "tailnet-lock modify access denied"),
    guarded("tka/force-local-disable", POST_W, (405, "use POST"), "tailnet-lock modify access denied"),
    open("tka/verify-deeplink", POST, (405, "use POST")),
    open("tka/affected-sigs", POST, (405, "use POST")),
    guarded("tka/disablement-kdf", POST_W, (405, "use POST"), "access denied"),
    guarded("tka/wrap-preauth-key", POST_W, (405, "use POST"), "tailnet-lock modify access denied"),
    guarded("tka/generate-recovery-aum", POST_W, (405, "use POST"), "access denied"),
    guarded("tka/cosign-recovery-aum", POST_W, (405, "use POST"), "access denied"),
    guarded("tka/submit-recovery-aum", POST_W, (405, "use POST"), "access denied"),
    guarded("debug", POST_W, (405, "POST required"), "debug access denied"),
    any("debug-packet-filter-rules", Right::Write, "debug access denied"),
    any("debug-packet-filter-matches", Right::Write, "debug access denied"),
    any("component-debug-logging", Right::Write, "debug access denied"),
];
