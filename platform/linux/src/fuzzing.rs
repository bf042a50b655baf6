//! The private decoders of this crate as functions of bytes, for `lab/fuzzing`.

use tsrs_platform_api::Instance;

use crate::{dns, journal, netlink, nft, rtnl};

/// A datagram of the kernel, each message read in every way. Gives how many of them meant something.
pub fn netlink(datagram: &[u8]) -> usize {
    netlink::received_in(datagram)
        .map(|received| {
            let readings = [
                rtnl::Address::parse(received.payload).is_some(),
                rtnl::Link::parse(received.payload).is_some(),
                rtnl::Route::parse(received.payload).is_some(),
                rtnl::Rule::parse(received.payload).is_some(),
                nft::is_relevant(received.kind, received.payload, Instance::default()),
                nft::concerns(received.kind, received.payload, Instance::default()),
            ];
            readings.into_iter().filter(|means| *means).count()
        })
        .sum()
}

/// `resolv.conf` as another program wrote it. Gives the number of its name servers.
pub fn resolv_conf(text: &str) -> usize {
    dns::ResolvConf::parse(text).servers().len()
}

/// `nsswitch.conf`. Tells whether systemd-resolved comes before the name servers.
pub fn nsswitch(text: &str) -> bool {
    dns::resolved_before_dns(text)
}

/// The journal of a predecessor. Tells whether it can be read.
pub fn journal(text: &[u8]) -> bool {
    journal::decode(text).is_ok()
}
