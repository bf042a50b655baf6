//! Wire types of the control protocol, in the protocol's own names (control protocol sheet §3, §8–§19, §22).
//!
//! Every type is read and written: the client, the embedded server and the LocalAPI share them. Reading is tolerant as
//! the reference is: unknown members are ignored, `null` counts as absent for every member, an address list loses the
//! entries that are no address. Writing leaves out what the reference leaves out. Where a present empty list differs
//! from an absent one (sheet §11), the member is an `Option`. An optional bool (`null` or absent = unset) is an
//! `Option<bool>`.
//!
//! The crate decides nothing about the content: folding responses into a netmap is `control/netmap`, compiling filter
//! rules is `tunnel/filter`. The caller bounds the size of what it hands to the JSON reader; lists whose entries need
//! far more memory than bytes on the wire are bounded here ([`MAX_LIST_LEN`]).
#![forbid(unsafe_code)]

#[macro_use]
mod wire;

mod bootstrap;
pub mod cap;
mod capver;
mod derp;
mod dns;
mod filter;
mod hostinfo;
mod map_request;
mod map_response;
mod node;
mod ping;
mod register;
mod rpc;
mod ssh;
mod tka;
mod user;
mod values;

pub use bootstrap::{EarlyNoise, OverTlsPublicKeyResponse};
pub use capver::CapabilityVersion;
pub use derp::{DerpHomeParams, DerpMap, DerpNode, DerpRegion, DerpRegions};
pub use dns::{DnsConfig, DnsRecord, DnsRoutes, Resolver};
pub use filter::{CapGrant, FilterRule, NetPortRange, PortRange};
pub use hostinfo::{Hostinfo, Location, NetInfo, Service, TpmInfo};
pub use map_request::{EndpointType, MapRequest};
pub use map_response::{
    ClientVersion, ControlDialPlan, ControlIpCandidate, Debug, DisplayMessage, DisplayMessageAction,
    MapResponse, TkaInfo,
};
pub use node::{Node, PeerChange};
pub use ping::{PingRequest, PingResponse};
pub use register::{RegisterRequest, RegisterResponse, RegisterResponseAuth};
pub use rpc::{
    AuditLogRequest, HealthChangeRequest, QueryFeatureRequest, QueryFeatureResponse,
    SetDeviceAttributesRequest, SetDnsRequest, SetDnsResponse, TokenRequest, TokenResponse,
    WebClientAuthResponse,
};
pub use ssh::{
    SshAction, SshEventNotifyRequest, SshPolicy, SshPrincipal, SshRecorderFailureAction, SshRecordingAttempt,
    SshRule,
};
pub use tka::{
    TkaBootstrapRequest, TkaBootstrapResponse, TkaDisableRequest, TkaDisableResponse, TkaInitBeginRequest,
    TkaInitBeginResponse, TkaInitFinishRequest, TkaInitFinishResponse, TkaSignInfo,
    TkaSignaturesUsingKeyRequest, TkaSignaturesUsingKeyResponse, TkaSubmitSignatureRequest,
    TkaSubmitSignatureResponse, TkaSyncOfferRequest, TkaSyncOfferResponse, TkaSyncSendRequest,
    TkaSyncSendResponse,
};
pub use user::{Login, User, UserProfile};
pub use values::{AuthKey, Base64, CapMap, RawMessage, SecretBase64};
pub use wire::MAX_LIST_LEN;

#[cfg(test)]
mod tests;
