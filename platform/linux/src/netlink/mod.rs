//! Netlink: messages of both families that are used here (route and netfilter), and the socket that carries them.
//!
//! The encoder and the decoder know the framing only (RFC 3549 §2.3); what an attribute means stands in
//! [`crate::rtnl`] and [`crate::nft`]. Unknown attributes are skipped, so a newer kernel does not break a dump.

mod codec;
mod socket;

#[cfg(feature = "fuzzing")]
pub(crate) use codec::received_in;
pub(crate) use codec::{
    APPEND, CREATE, DUMP, EXCL, Message, REPLACE, attr_string, attr_u32, attrs, split_at_attrs,
};
pub(crate) use socket::{Event, Failure, NetlinkError, Socket, Subscription};
