//! What is joined, what is not, and that cutting a run gives the packets back.

use super::*;
use crate::gso::{SuperPacket, put};
use crate::ipv4::tcp_flag::{ACK, CWR, FIN, PSH, SYN, URG};
use crate::test_packets::{Random, Tcp, fix_checksums, is_intact, udp_packet};
use crate::vnet::{self, VirtioNetHdr};

const ALL: Options = Options { tcp: true, udp: true };

/// The numbers of the packets in each run.
fn grouped(options: Options, packets: &[Vec<u8>]) -> Vec<Vec<u32>> {
    let mut gro = Gro::new(options);
    coalesce(&mut gro, packets);
    gro.runs().map(|run| run.slices().map(|slice| slice.packet).collect()).collect()
}

fn coalesce(gro: &mut Gro, packets: &[Vec<u8>]) {
    gro.coalesce(u32::try_from(packets.len()).unwrap(), |index| &packets[usize::try_from(index).unwrap()]);
}

/// What is written to the TUN for each run.
fn written(gro: &Gro, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let packet = |index: u32| &packets[usize::try_from(index).unwrap()];
    gro.runs()
        .map(|run| {
            let mut out = run.head(packet(run.first_packet())).bytes().to_vec();
            for slice in run.slices() {
                out.extend_from_slice(&packet(slice.packet)[usize::from(slice.start)..]);
            }
            out
        })
        .collect()
}

/// Cuts what was written as the kernel would.
fn cut(write: &[u8]) -> Vec<Vec<u8>> {
    let (header, packet) = VirtioNetHdr::split(write).unwrap();
    let whole = SuperPacket::new(&header, packet).unwrap();
    (0..whole.count())
        .map(|index| {
            let mut out = vec![0; whole.len_of(index)];
            whole.write(index, &mut out).unwrap();
            out
        })
        .collect()
}

/// Segments that follow each other, each of `len` bytes.
fn stream(first_sequence: u32, lens: &[usize]) -> Vec<Vec<u8>> {
    let mut sequence = first_sequence;
    lens.iter()
        .map(|len| {
            let packet = Tcp::new(sequence, ACK, &vec![len.to_le_bytes()[0]; *len]).packet();
            sequence = sequence.wrapping_add(u32::try_from(*len).unwrap());
            packet
        })
        .collect()
}

#[test]
fn a_run_is_the_super_packet_that_the_kernel_expects() {
    let mut packets = stream(u32::MAX - 1500, &[1000, 1000, 500]);
    packets[2][33] |= PSH;
    fix_checksums(&mut packets[2]);
    let mut gro = Gro::new(ALL);
    coalesce(&mut gro, &packets);
    let writes = written(&gro, &packets);
    assert_eq!(writes.len(), 1);
    let (header, packet) = VirtioNetHdr::split(&writes[0]).unwrap();
    assert_eq!(header.to_bytes(), {
        let expected = VirtioNetHdr {
            flags: vnet::NEEDS_CSUM,
            gso_type: vnet::GSO_TCPV4,
            hdr_len: 40,
            gso_size: 1000,
            csum_start: 20,
            csum_offset: 16,
        };
        expected.to_bytes()
    });
    assert_eq!(packet.len(), 2540);
    assert_eq!(packet[33], ACK | PSH);
    let segments = cut(&writes[0]);
    assert!(segments.iter().all(|segment| is_intact(segment)));
    assert_eq!(without_ids(&segments), without_ids(&packets));
}

#[test]
fn only_what_follows_is_joined_to_the_end_of_a_run() {
    assert_eq!(grouped(ALL, &stream(9, &[100, 100, 100, 40, 100])), [vec![0, 1, 2, 3], vec![4]]);
    assert_eq!(grouped(ALL, &stream(9, &[100, 101])), [[0], [1]]);
    let gap = [stream(0, &[100]), stream(101, &[100])].concat();
    assert_eq!(grouped(ALL, &gap), [[0], [1]]);
    let mut pushed = stream(0, &[100, 100, 100]);
    pushed[1][33] |= PSH;
    fix_checksums(&mut pushed[1]);
    assert_eq!(grouped(ALL, &pushed), [vec![0, 1], vec![2]]);
}

#[test]
fn an_overtaken_segment_is_put_in_front() {
    let packets = stream(0, &[100, 100, 100]);
    let reordered = [packets[1].clone(), packets[0].clone(), packets[2].clone()];
    assert_eq!(grouped(ALL, &reordered), [[1, 0, 2]]);
    // In front of a single shorter one, which then is the last.
    let packets = stream(0, &[100, 60]);
    assert_eq!(
        grouped(ALL, &[packets[1].clone(), packets[0].clone(), stream(160, &[60])[0].clone()]),
        [vec![1, 0], vec![2]]
    );
    // Not in front of several, and not with PSH, which ends a run.
    let longer = stream(0, &[101, 100, 100]);
    assert_eq!(
        grouped(ALL, &[longer[1].clone(), longer[2].clone(), longer[0].clone()]),
        [vec![0, 1], vec![2]]
    );
    let mut pushed = stream(0, &[100, 100]);
    pushed[0][33] |= PSH;
    fix_checksums(&mut pushed[0]);
    pushed.reverse();
    assert_eq!(grouped(ALL, &pushed), [[0], [1]]);
}

#[test]
fn everything_that_segments_share_must_be_equal() {
    let packets = stream(500, &[100, 100]);
    assert_eq!(grouped(ALL, &packets), [[0, 1]]);
    // Type of service, don't-fragment bit, time to live, addresses, ports, acknowledgement, reserved bits.
    for (offset, change) in
        [(1, 3), (6, 0x40), (8, 1), (12, 1), (19, 1), (20, 1), (23, 1), (28, 1), (31, 1), (32, 1)]
    {
        let mut other = packets.clone();
        other[1][offset] ^= change;
        fix_checksums(&mut other[1]);
        assert_eq!(grouped(ALL, &other), [[0], [1]], "{offset}");
    }
    // The IP identification and the window may differ.
    for offset in [4, 35] {
        let mut other = packets.clone();
        other[1][offset] ^= 1;
        fix_checksums(&mut other[1]);
        assert_eq!(grouped(ALL, &other), [[0, 1]], "{offset}");
    }
    let with_options = |value: u8| {
        let mut tcp = Tcp::new(600, ACK, &[1; 100]);
        tcp.options = vec![1, 1, 1, value];
        tcp.packet()
    };
    let mut first = Tcp::new(500, ACK, &[1; 100]);
    first.options = vec![1, 1, 1, 1];
    assert_eq!(grouped(ALL, &[first.packet(), with_options(1)]), [[0, 1]]);
    assert_eq!(grouped(ALL, &[first.packet(), with_options(0)]), [[0], [1]]);
    assert_eq!(grouped(ALL, &[first.packet(), packets[1].clone()]), [[0], [1]]);
}

#[test]
fn other_flags_and_bare_acknowledgements_stay_alone_and_keep_their_place() {
    for flags in [SYN, SYN | ACK, ACK | FIN, ACK | URG, ACK | CWR, 0, PSH] {
        let packets = [
            Tcp::new(0, ACK, &[1; 100]).packet(),
            Tcp::new(100, flags, &[1; 100]).packet(),
            Tcp::new(100, ACK, &[1; 100]).packet(),
        ];
        assert_eq!(grouped(ALL, &packets), [[0], [1], [2]], "{flags}");
    }
    let bare = [
        Tcp::new(0, ACK, &[1; 9]).packet(),
        Tcp::new(9, ACK, &[]).packet(),
        Tcp::new(9, ACK, &[1; 9]).packet(),
    ];
    assert_eq!(grouped(ALL, &bare), [[0], [1], [2]]);
}

#[test]
fn fragments_options_and_wrong_lengths_stay_alone() {
    let packets = stream(0, &[100, 100]);
    for (offset, value) in [(6, 0x20), (7, 1), (0, 0x46), (3, 139), (3, 141), (32, 0x40)] {
        let mut other = packets.clone();
        for packet in &mut other {
            packet[offset] = value;
        }
        assert_eq!(grouped(ALL, &other), [[0], [1]], "{offset}");
    }
    let mut udp = [udp_packet((1, 2), b"abcd"), udp_packet((1, 2), b"efgh")];
    for packet in &mut udp {
        put(packet, 24, 11);
    }
    assert_eq!(grouped(ALL, &udp), [[0], [1]]);
    assert_eq!(grouped(ALL, &[vec![], vec![0x45], vec![0; 20]]), [[0], [1], [2]]);
}

#[test]
fn a_wrong_checksum_is_never_joined() {
    for damaged in 0..2 {
        let mut packets = stream(0, &[100, 100]);
        packets[damaged][90] ^= 1;
        assert_eq!(grouped(ALL, &packets), [[0], [1]]);
    }
    let mut packets = stream(0, &[100, 100, 100]);
    packets[1][37] ^= 1;
    let mut gro = Gro::new(ALL);
    coalesce(&mut gro, &packets);
    let writes = written(&gro, &packets);
    // The damaged one is handed on as it came, for the host to count.
    assert!(writes.contains(&[VirtioNetHdr::default().to_bytes().to_vec(), packets[1].clone()].concat()));
}

#[test]
fn datagrams_of_equal_size_are_joined_until_a_shorter_one() {
    let payloads: Vec<Vec<u8>> = [200, 200, 150, 200].iter().map(|len| vec![5; *len]).collect();
    let mut packets: Vec<_> = payloads.iter().map(|payload| udp_packet((7, 8), payload)).collect();
    assert_eq!(grouped(ALL, &packets), [vec![0, 1, 2], vec![3]]);
    // Over IPv4 the checksum may be left out.
    put(&mut packets[0], 26, 0);
    assert_eq!(grouped(ALL, &packets)[0], [0, 1, 2]);
    let mut gro = Gro::new(ALL);
    coalesce(&mut gro, &packets);
    let segments = cut(&written(&gro, &packets)[0]);
    assert!(segments.iter().all(|segment| is_intact(segment)));
    packets[1][40] ^= 1;
    // The damaged one stands alone, and the flow goes on behind it.
    assert_eq!(grouped(ALL, &packets), [vec![0], vec![1], vec![2], vec![3]]);
}

#[test]
fn limits_of_a_run() {
    let many = vec![udp_packet((1, 2), b"x"); 130];
    let lens: Vec<_> = grouped(ALL, &many).iter().map(Vec::len).collect();
    assert_eq!(lens, [64, 64, 2]);
    let large = stream(0, &[9000; 9]);
    let lens: Vec<_> = grouped(ALL, &large).iter().map(Vec::len).collect();
    assert_eq!(lens, [7, 2]);
}

#[test]
fn interleaved_flows_are_joined_each_by_itself() {
    let flow = |port: u16, sequence: u32| {
        let mut tcp = Tcp::new(sequence, ACK, &[3; 50]);
        tcp.ports.0 = port;
        tcp.packet()
    };
    let packets: Vec<_> = (0..12).map(|at| flow(1000 + at % 3, u32::from(at / 3) * 50)).collect();
    assert_eq!(grouped(ALL, &packets), [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]);
}

#[test]
fn what_is_switched_off_stays_alone() {
    let packets = [stream(0, &[10, 10]), vec![udp_packet((1, 2), b"ab"); 2]].concat();
    assert_eq!(grouped(ALL, &packets), [[0, 1], [2, 3]]);
    let only_udp = Options { tcp: false, udp: true };
    assert_eq!(grouped(only_udp, &packets), [vec![0], vec![1], vec![2, 3]]);
    let only_tcp = Options { tcp: true, udp: false };
    assert_eq!(grouped(only_tcp, &packets), [vec![0, 1], vec![2], vec![3]]);
}

/// The same packets with identification and IP checksum, which a run does not keep, set to zero.
fn without_ids(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let masked = |packet: &Vec<u8>| {
        let mut packet = packet.clone();
        packet[4..6].fill(0);
        packet[10..12].fill(0);
        packet
    };
    packets.iter().map(masked).collect()
}

/// Several flows, interleaved, with losses, swaps, flags, odd sizes and damage.
fn random_batch(random: &mut Random) -> Vec<Vec<u8>> {
    let mut sequences = [0_u32; 4];
    let mut batch = Vec::new();
    let segment_len = 1 + random.below(1400);
    for _ in 0..1 + random.below(150) {
        let flow = random.below(6);
        let len = if random.below(8) == 0 { 1 + random.below(segment_len) } else { segment_len };
        let payload = random.bytes(len);
        let port = u16::try_from(flow).unwrap();
        let mut packet = match sequences.get_mut(flow) {
            Some(sequence) => {
                let flags = [ACK, ACK, ACK, ACK, ACK | PSH, ACK | FIN][random.below(6)];
                let mut tcp = Tcp::new(*sequence, flags, &payload);
                tcp.ports.0 = port;
                tcp.options = vec![1; 4 * (flow % 3)];
                *sequence =
                    sequence.wrapping_add(u32::try_from(len + usize::from(random.below(20) == 0)).unwrap());
                tcp.packet()
            }
            None => udp_packet((port, 53), &payload),
        };
        if random.below(25) == 0 {
            let at = 20 + random.below(packet.len() - 20);
            packet[at] ^= 4;
        }
        batch.push(packet);
        if random.below(6) == 0 && batch.len() > 1 {
            let last = batch.len() - 1;
            batch.swap(last, last - 1);
        }
    }
    batch
}

#[test]
fn cutting_the_runs_gives_every_packet_back_and_keeps_the_order_of_datagrams() {
    let mut random = Random::new(20);
    let mut gro = Gro::new(ALL);
    let (mut packet_count, mut run_count) = (0, 0);
    for round in 0..150 {
        let packets = random_batch(&mut random);
        coalesce(&mut gro, &packets);
        let writes = written(&gro, &packets);
        packet_count += packets.len();
        run_count += writes.len();
        let mut segments = Vec::new();
        for write in &writes {
            let parts = cut(write);
            assert!(parts.len() == 1 || parts.iter().all(|part| is_intact(part)), "round {round}");
            segments.extend(parts);
        }
        let (mut given, mut got) = (without_ids(&packets), without_ids(&segments));
        let datagrams = |packets: &[Vec<u8>], port: u8| {
            let of_flow = |packet: &&Vec<u8>| packet[9] == 17 && packet[20..24] == [0, port, 0, 53];
            packets.iter().filter(of_flow).cloned().collect::<Vec<_>>()
        };
        for port in [4, 5] {
            assert!(datagrams(&given, port) == datagrams(&got, port), "round {round}");
        }
        given.sort_unstable();
        got.sort_unstable();
        assert!(given == got, "round {round}");
    }
    assert!(run_count * 3 < packet_count * 2, "{run_count} runs of {packet_count} packets");
}
