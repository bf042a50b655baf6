//! SSH policy (sheet §17). The JSON of these types is camelCase.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tsrs_base_types::time::WireTime;
use tsrs_base_types::{NodeId, NodePublic, StableNodeId};

use crate::CapabilityVersion;

wire! {
    /// Who may log in by SSH; the first rule that matches decides.
    struct SshPolicy {
        /// The rules in order.
        list "rules" rules: Vec<SshRule>,
    }

    /// A predicate and what to do when it holds.
    struct SshRule {
        /// When the rule ends.
        omit "ruleExpires" rule_expires: Option<WireTime>,
        /// Who connects; any of them.
        list "principals" principals: Vec<SshPrincipal>,
        /// Requested user or `*` to local user; `=` means the same name, empty means no match.
        keep "sshUsers" ssh_users: Option<BTreeMap<String, String>>,
        /// What to do. `None` denies.
        keep "action" action: Option<Box<SshAction>>,
        /// Environment variables that the client may set; `*` and `?` are wildcards.
        omit "acceptEnv" accept_env: Vec<String>,
    }

    /// Who connects; one member that matches is enough.
    struct SshPrincipal {
        /// A node.
        omit "node" node: StableNodeId,
        /// Address of a node.
        omit "nodeIP" node_ip: String,
        /// Login name of the owner.
        omit "userLogin" user_login: String,
        /// Anyone.
        omit "any" any: bool,
    }

    /// What happens to a connection. `reject` beats `accept`.
    struct SshAction {
        /// Shown to the user first.
        omit "message" message: String,
        /// End the connection.
        omit "reject" reject: bool,
        /// Let it in.
        omit "accept" accept: bool,
        /// Nanoseconds until the session is ended; zero means no limit.
        omit "sessionDuration" session_duration_ns: i64,
        /// Allow agent forwarding.
        omit "allowAgentForwarding" allow_agent_forwarding: bool,
        /// Ask this URL over Noise for the action and hold the connection until it answers.
        omit "holdAndDelegate" hold_and_delegate: String,
        /// Allow local port forwarding.
        omit "allowLocalPortForwarding" allow_local_port_forwarding: bool,
        /// Allow remote port forwarding.
        omit "allowRemotePortForwarding" allow_remote_port_forwarding: bool,
        /// Where the session is recorded.
        addrs "recorders" recorders: Vec<SocketAddr>,
        /// What happens when recording fails; `None` lets the session go on.
        omit "onRecordingFailure" on_recording_failure: Option<SshRecorderFailureAction>,
    }

    /// What happens when a session cannot be recorded.
    struct SshRecorderFailureAction {
        /// Refuse the session with this message.
        omit "RejectSessionWithMessage" reject_session_with_message: String,
        /// End the session with this message.
        omit "TerminateSessionWithMessage" terminate_session_with_message: String,
        /// Report to this URL over Noise.
        omit "NotifyURL" notify_url: String,
    }

    /// Report to `notify_url`.
    struct SshEventNotifyRequest {
        /// 1 rejected, 2 terminated, 3 failed.
        keep "EventType" event_type: i64,
        /// The connection.
        keep "ConnectionID" connection_id: String,
        /// Capability version of the client.
        keep "CapVersion" cap_version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Who connected.
        keep "SrcNode" src_node: NodeId,
        /// The requested user.
        keep "SSHUser" ssh_user: String,
        /// The local user.
        keep "LocalUser" local_user: String,
        /// What was tried.
        keep "RecordingAttempts" recording_attempts: Vec<SshRecordingAttempt>,
    }

    /// One attempt to record.
    struct SshRecordingAttempt {
        /// Address and port of the recorder.
        keep "Recorder" recorder: String,
        /// Why it failed.
        keep "FailureMessage" failure_message: String,
    }
}
