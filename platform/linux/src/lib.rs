//! Linux: TUN, routes and rules, nftables, DNS managers, link monitor, marks, peer credentials and the journal of changes.
