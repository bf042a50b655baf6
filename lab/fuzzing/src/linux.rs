//! What the Linux kernel and files of the host say.

use tsrs_platform_linux::fuzzing;

use crate::input::Input;

/// Datagrams of route and netfilter netlink.
pub fn netlink(data: &[u8]) {
    fuzzing::netlink(data);
}

/// `resolv.conf`, `nsswitch.conf` and the journal of a predecessor.
pub fn files(data: &[u8]) {
    let text = Input::new(data).text();
    fuzzing::resolv_conf(&text);
    fuzzing::nsswitch(&text);
    fuzzing::journal(data);
}
