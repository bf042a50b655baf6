//! Writes the seeds of all targets anew: `cargo run -p tsrs-lab-fuzzing --example seeds`.
//!
//! They are cases of the reference (`lab/vectors`) and what our own encoders write.

use std::path::Path;

use data_encoding::BASE64;
use serde_json::{Value, json};
use tsrs_lab_fuzzing::TARGETS;
use tsrs_lab_fuzzing::input::script;
use tsrs_lab_vectors::{hex, json as vector};

/// Longest seed that is written; longer cases are left out.
const MAX_LEN: usize = 4096;
/// Cases of one file of the reference that become seeds.
const MAX_CASES: usize = 8;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (target, _) in TARGETS {
        let folder = folder.join(target);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let seeds = seeds(target).into_iter().filter(|seed| seed.len() <= MAX_LEN);
        for (number, seed) in seeds.enumerate() {
            std::fs::write(folder.join(format!("{number:02}")), seed)?;
        }
    }
    Ok(())
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "aead_batch" => batches(),
        "agent_localapi" => agent_requests(),
        "agent_answers" => agent_answers(),
        "agent_state_file" => vec![state_file()],
        "agent_config_file" => vec![
            b"{\n// a comment\n\"version\": \"alpha0\", /* one more */ \"serverURL\": \"https://x.test\", \"hostname\": \"h\", \"acceptDNS\": true,}".to_vec(),
            br#"{"version":"alpha0","authKey":"tskey-auth-x","advertiseRoutes":["10.0.0.0/8"],"locked":false}"#.to_vec(),
        ],
        "agent_takeover" => vec![takeover()],
        "agent_dns_message" | "net_dns_answer" => dns_responses(),
        "control_map_stream" => map_stream(),
        "control_early_payload" => {
            let json = br#"{"nodeKeyChallenge":"chalpub:00"}"#;
            vec![[b"\x07\xff\xff\xffTS\0\0\0\x21".as_slice(), json, b"\0\0\0\x04\0\0\0\0\0"].concat(), b"\x30\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64".to_vec()]
        }
        "control_c2n_request" => vec![
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
            b"GET http://host/echo?a=b HTTP/1.0\r\n\r\n".to_vec(),
            b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n".to_vec(),
        ],
        "control_netmap" => netmap(),
        "control_netmap_cache" => netmap_cache(),
        "control_replies" => replies(),
        "dataplane_inbound" => {
            let packets = packets();
            let mut all = vec![script(packets.iter().map(|packet| (4, packet.as_slice())))];
            all.extend(packets.iter().map(|packet| script([(0x36, packet.as_slice()), (5, packet.as_slice())])));
            all.push(script(disco().iter().chain(&stun()).map(|datagram| (3, datagram.as_slice()))));
            all
        }
        "dataplane_outbound" | "packet_gso" => offloads(target == "dataplane_outbound"),
        "derp_frames" => derp_frames(),
        "derp_greetings" => vec![
            br#"{"version":2,"CanAckPings":true}"#.to_vec(),
            br#"{"version":2,"TokenBucketBytesPerSecond":1000,"TokenBucketBytesBurst":9000}"#.to_vec(),
        ],
        "derp_client" => derp_client(),
        "dns_query" => vector("dns/magicdns.json")["cases"]
            .as_array()
            .into_iter()
            .flatten()
            .step_by(40)
            .map(|case| [&[0], bytes(&case["query"]).as_slice()].concat())
            .collect(),
        "dns_answer" => dns_answers(),
        "dns_texts" => ["host.tail1234.ts.net.", "_dmarc.xn--bcher-kva.test", "8.8.8.8", "[::1]:53", "https://dns.google/dns-query", "http://100.64.0.9:80/dns-query"]
            .map(|text| text.as_bytes().to_vec())
            .to_vec(),
        "engine_control_messages" => {
            let message = |level: i32, kind: i32, value: i32| {
                [20_usize.to_ne_bytes().as_slice(), &level.to_ne_bytes(), &kind.to_ne_bytes(), &value.to_ne_bytes(), &[0; 4]].concat()
            };
            vec![message(17, 104, 1280), [message(17, 104, 1200), message(1, 40, 7)].concat()]
        }
        "exit_socks5" => vec![
            b"\x08\x05\0\x05\0\0\x01\x0b\0\0\x08\x12\x34rest".to_vec(),
            b"\x0c\x05\x02\x01\0\x05\0\0\x03\x04name\0\x50rest".to_vec(),
            b"\x0a\x05\0\x05\0\0\x01\0\0\0\0\x12\x34".to_vec(),
            b"\x0f\x05\x02\x01\x01".to_vec(),
            b"\x08\x05\0\x05\x05\0\x01".to_vec(),
        ],
        "exit_http" => vec![
            b"\xf8HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nrest".to_vec(),
            b"\x0cHTTP/1.0 407 no\r\nProxy-Authenticate: Basic realm=\"a\"\r\n\r\n".to_vec(),
            b"\xffHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 no\r\n\r\n".to_vec(),
        ],
        "exit_udp" => vec![b"\0\0\0\x01\x0b\x01\x02\x03\x01\xbbdata".to_vec(), b"\0\0\x01\x03\x04name\0\x50".to_vec()],
        "exit_flows" => exit_flows(),
        "exit_texts" => ["socks5h://proxy.example.test:1080", "https://11.0.0.8", "file:/etc/proxy", "credential:exit-proxy", "user:password"]
            .map(|text| text.as_bytes().to_vec())
            .to_vec(),
        "filter_rules" => cases("filter/rule-parse.json", MAX_CASES, |case| Some(case["rules"].to_string().into_bytes())),
        "filter_packets" => vec![
            [&[0], script(packets().iter().zip(0_u8..).map(|(packet, number)| (number, packet.as_slice()))).as_slice()].concat(),
        ],
        "linux_netlink" => netlink(),
        "linux_files" => vec![
            b"# from DHCP\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\ndomain old.test\nsearch a.test b.test\noptions edns0\n".to_vec(),
            b"passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n".to_vec(),
            br#"{"version":1,"router":{"instance":0,"tun":"tailscale0"}}"#.to_vec(),
        ],
        "net_files" => vec![
            b"nameserver 192.0.2.53\nsearch a.test b.test\n".to_vec(),
            b"192.0.2.1 derp.example.test derp # comment\n::1 localhost\n".to_vec(),
            b"http://user:p%40ss@proxy.test:3128".to_vec(),
            b"socks5://127.0.0.1:1080".to_vec(),
            b"localhost,.corp.test,10.0.0.0/8,192.0.2.1:8080".to_vec(),
        ],
        "net_proxy" => vec![
            b"\x05HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nrest".to_vec(),
            b"\xffHTTP/1.0 407 no\r\n\r\n".to_vec(),
            b"\xff\x05\0\x05\0\0\x01\xc0\0\x02\x01\0\x50rest".to_vec(),
            b"\xff\x05\x02\x01\0\x05\0\0\x03\x04name\0\x50rest".to_vec(),
        ],
        "net_certificate" => vec![hex(CERTIFICATE)],
        "net_url" => ["https://control.test/", "http://192.0.2.1:8080/path?query#fragment", "https://[2001:db8::1]/", "/relative"]
            .map(|text| text.as_bytes().to_vec())
            .to_vec(),
        "noise_response" => vec![
            [b"\xff\x02\0\x30".as_slice(), &[7; 48]].concat(),
            b"\x02\x03\0\x05wrong".to_vec(),
        ],
        "noise_responder" => vec![Vec::new(), vec![40, 0, 1], vec![5, 0, 0xff, 90, 0, 0]],
        "noise_records" => vec![
            script([(4, b"hello".as_slice()), (4, &[]), (4, &[1; 700])]),
            [b"\x10\x04\0\x20".as_slice(), &[9; 32]].concat(),
        ],
        "packet_ipv4" => packets(),
        "packet_gro" => gro(),
        "packet_tsmp" => vec![b"!\x06A\x04\xd2\0\x50\x01".to_vec(), b"p12345678".to_vec(), b"o12345678\x1f\x90".to_vec(), [b"a".as_slice(), &[5; 32]].concat()],
        "path_disco" => disco_plain(),
        "path_stun" => stun(),
        "path_datagram" => [disco(), stun(), cases("wire/geneve.json", 4, |case| Some(bytes(&case["bytes"])))].concat(),
        "path_machine" => {
            let mut messages = disco_plain();
            messages.truncate(16);
            let each = messages.iter().flat_map(|message| [(4, message.as_slice()), (6, message.as_slice()), (20, &[40][..])]);
            vec![
                script([(16, [].as_slice()), (24, &[192, 0, 2, 7, 1, 2]), (20, &[200])].into_iter().chain(each)),
                script(stun().iter().map(|datagram| (0, datagram.as_slice()))),
            ]
        }
        "service_packets" => service(),
        "wireguard_handshake" => vec![
            [&[0], script([(1, [].as_slice()), (2, &[]), (3, &[0x45; 40]), (2, &[]), (1, &[4, 0, 1])]).as_slice()].concat(),
            [&[1], script([(1, [].as_slice()), (2, &[]), (1, &[116, 0, 1]), (0xf2, &[])]).as_slice()].concat(),
            [&[0], script(wireguard().iter().map(|message| (0, message.as_slice()))).as_slice()].concat(),
        ],
        "wireguard_session" => {
            let packets = packets();
            vec![
                script(packets.iter().map(|packet| (2, packet.as_slice()))),
                script([(2, [].as_slice()), (1, &[0; 40]), (0, &[4, 0, 0, 0, 1, 2, 3, 4]), (6, &[0x45; 30]), (10, &[0x60; 60])]),
            ]
        }
        unknown => panic!("{unknown} has no seeds here"),
    }
}

/// Key, place and mask of a change, and records: a run of even texts with a shorter one, small ones, all lengths, overlaps.
fn batches() -> Vec<Vec<u8>> {
    let start = [&[7; 32], [40, 0, 1].as_slice()].concat();
    let batch = |records: Vec<(u8, [u8; 3])>| {
        let records = script(records.iter().map(|(kind, layout)| (*kind, layout.as_slice())));
        [start.as_slice(), &records].concat()
    };
    vec![
        batch(vec![(0x70, [177, 4, 0]); 12]),
        batch([vec![(0x10, [96, 0, 0]); 20], vec![(0, [33, 0, 0])]].concat()),
        batch((0..64).map(|at| (at % 16, [at * 3, at, 0])).collect()),
        batch(vec![(0x10, [200, 0, 0]), (0x90, [100, 0, 3]), (0x80, [50, 0, 255]), (0, [0, 0, 0])]),
        batch(vec![(0x70, [177, 4, 0])]),
    ]
}

fn bytes(value: &Value) -> Vec<u8> {
    hex(value.as_str().unwrap_or_default())
}

fn cases(file: &str, count: usize, seed: impl Fn(&Value) -> Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let file = vector(file);
    let all = file["cases"].as_array().cloned().unwrap_or_default();
    let step = (all.len() / count).max(1);
    all.iter()
        .step_by(step)
        .filter_map(seed)
        .filter(|seed| !seed.is_empty() && seed.len() <= MAX_LEN)
        .collect()
}

/// Packets that the filter's cases have, each kind once.
fn packets() -> Vec<Vec<u8>> {
    let mut packets = cases("filter/packet-parse.json", 40, |case| Some(bytes(&case["bytes"])));
    packets.retain(|packet| packet.len() <= 200);
    packets.truncate(12);
    let udp = hex("450000240000000040110000644000026440000104d200350010000068656c6c6f203132");
    let echo = hex("4500001c00000000400100006440000264400001080000000000000a");
    packets.extend([udp, echo, tcp(1, 0x10, b"hello"), tcp(0, 0x02, &[])]);
    packets
}

/// A TCP segment from 100.64.0.2 to 100.64.0.1 with right checksums.
fn tcp(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    segment([100, 64, 0, 2], [100, 64, 0, 1], [4000, 53], sequence, 0, flags, payload)
}

fn segment(
    src: [u8; 4],
    dst: [u8; 4],
    ports: [u16; 2],
    sequence: u32,
    ack: u32,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let len = u16::try_from(40 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = [&[0x45, 0][..], &len.to_be_bytes(), &[0, 0, 0x40, 0, 64, 6, 0, 0], &src, &dst].concat();
    let sum = checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    for port in ports {
        packet.extend_from_slice(&port.to_be_bytes());
    }
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&ack.to_be_bytes());
    packet.extend_from_slice(&[0x50, flags, 0x10, 0, 0, 0, 0, 0]);
    packet.extend_from_slice(payload);
    let pseudo = [&src[..], &dst, &[0, 6], &(len - 20).to_be_bytes(), &packet[20..]].concat();
    let sum = checksum(&pseudo).to_be_bytes();
    packet[36..38].copy_from_slice(&sum);
    packet
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Packets behind offload headers: complete, without checksum, and super-packets of TCP and UDP.
fn offloads(as_records: bool) -> Vec<Vec<u8>> {
    let header = |flags: u8, kind: u8, gso: u16, start: u16, offset: u16| {
        [&[flags, kind, 0, 0][..], &gso.to_ne_bytes(), &start.to_ne_bytes(), &offset.to_ne_bytes()].concat()
    };
    let swapped = |packet: Vec<u8>| [&packet[..12], &packet[16..20], &packet[12..16], &packet[20..]].concat();
    let udp = hex("450000240000000040110000644000016440000204d200350010000068656c6c6f203132");
    let long = segment([100, 64, 0, 1], [100, 64, 0, 2], [4000, 53], 9, 1, 0x18, &[7; 1000]);
    let service = segment([100, 64, 0, 1], [100, 100, 100, 100], [4000, 53], 9, 0, 2, &[]);
    let all = vec![
        [header(0, 0, 0, 0, 0), swapped(tcp(1, 0x18, b"hello"))].concat(),
        [header(1, 0, 0, 20, 6), udp.clone()].concat(),
        [header(1, 1, 300, 20, 16), long].concat(),
        [header(1, 5, 4, 20, 6), udp].concat(),
        [header(0, 0, 0, 0, 0), service].concat(),
    ];
    if as_records { vec![script(all.iter().map(|packet| (0, packet.as_slice())))] } else { all }
}

fn gro() -> Vec<Vec<u8>> {
    let run: Vec<Vec<u8>> =
        (0..4).map(|number| tcp(number * 100, 0x10, &[7; 100])).chain([tcp(400, 0x18, &[8; 30])]).collect();
    let udp = hex("450000240000000040110000644000026440000104d200350010000068656c6c6f203132");
    vec![
        [&[0], script(run.iter().map(|packet| (0, packet.as_slice()))).as_slice()].concat(),
        [&[0], script(run.iter().rev().map(|packet| (0, packet.as_slice()))).as_slice()].concat(),
        [&[0], script([(0, udp.as_slice()), (0, &udp), (0, &run[0])]).as_slice()].concat(),
    ]
}

/// A whole query by TCP, and one by UDP. The stack's first sequence number follows from its seed; the client's acknowledgements are found by
/// asking it.
/// A connection of a peer in which everything happens once. The first number of the stack is the first one of the target's seed.
fn exit_flows() -> Vec<Vec<u8>> {
    use rand_core::RngCore as _;
    let (peer, destination, ports) = ([100, 64, 0, 9], [11, 1, 2, 3], [4000, 80]);
    let theirs = tsrs_lab_fuzzing::input::Seeded(1).next_u32().wrapping_add(1);
    let of_peer = |seq: u32, acked: u32, flags: u8, payload: &[u8]| {
        segment(peer, destination, ports, seq, theirs.wrapping_add(acked), flags, payload)
    };
    let records = [
        (1, segment(peer, destination, ports, 100, 0, 2, &[])),
        (3, Vec::new()),
        (1, of_peer(101, 0, 0x10, &[])),
        (1, of_peer(101, 0, 0x18, b"request")),
        (6, Vec::new()),
        (5, vec![7; 1500]),
        (1, of_peer(113, 0, 0x18, b"later")),
        (1, of_peer(108, 500, 0x18, b"early")),
        (0x42, Vec::new()),
        (7, Vec::new()),
        (1, of_peer(118, 1501, 0x11, &[])),
        (6, Vec::new()),
        (0xf2, Vec::new()),
    ];
    let syns = (1..6).map(|port| (1, segment(peer, destination, [port, 80], 1, 0, 2, &[])));
    let decisions =
        [(3, Vec::new()), (0x14, Vec::new()), (0x23, Vec::new()), (0x28, Vec::new()), (0xf2, Vec::new())];
    let many: Vec<_> = syns.chain(decisions).collect();
    let borrowed = |records: &[(u8, Vec<u8>)]| {
        script(records.iter().map(|(kind, record)| (*kind, record.as_slice())).collect::<Vec<_>>())
    };
    vec![borrowed(&records), borrowed(&many)]
}

fn service() -> Vec<Vec<u8>> {
    let (host, stack_address) = ([100, 64, 0, 1], [100, 100, 100, 100]);
    let query = hex("12340100000100000000000003777777076578616d706c6503636f6d0000010001");
    let framed = [&u16::try_from(query.len()).unwrap_or(0).to_be_bytes()[..], &query].concat();
    let now = std::time::Instant::now();
    let mut stack = tsrs_tunnel_service::ServiceStack::new(stack_address.into(), 1280, 1, now);
    let syn = segment(host, stack_address, [4000, 53], 100, 0, 2, &[]);
    stack.handle_packet(&syn, now);
    let answer = stack.poll_packet().unwrap_or_default();
    let theirs = answer.get(24..28).map_or(0, |raw| u32::from_be_bytes([raw[0], raw[1], raw[2], raw[3]]));
    let ack = segment(host, stack_address, [4000, 53], 101, theirs.wrapping_add(1), 0x10, &[]);
    let data = segment(host, stack_address, [4000, 53], 101, theirs.wrapping_add(1), 0x18, &framed);
    let fin = segment(
        host,
        stack_address,
        [4000, 53],
        101 + u32::try_from(framed.len()).unwrap_or(0),
        theirs.wrapping_add(1),
        0x11,
        &[],
    );
    let udp_len = u16::try_from(8 + query.len()).unwrap_or(0);
    let udp = [
        &[0x45, 0][..],
        &(20 + udp_len).to_be_bytes(),
        &[0, 0, 0, 0, 64, 17, 0, 0],
        &host,
        &stack_address,
        &[0x0f, 0xa0, 0, 53],
        &udp_len.to_be_bytes(),
        &[0, 0],
        &query,
    ]
    .concat();
    let mut udp = udp;
    let sum = checksum(&udp[..20]).to_be_bytes();
    udp[10..12].copy_from_slice(&sum);
    vec![
        script([
            (0, syn.as_slice()),
            (0, &ack),
            (0, &data),
            (3, &[7; 40]),
            (0, &fin),
            (0xfe, &[]),
            (0xfe, &[]),
        ]),
        script([(0, udp.as_slice()), (3, &[7; 40]), (0, &syn), (0, &udp)]),
    ]
}

fn disco() -> Vec<Vec<u8>> {
    cases("disco/messages.json", MAX_CASES, |case| Some(bytes(&case["envelope"])))
}

/// One message of each type.
fn disco_plain() -> Vec<Vec<u8>> {
    let file = vector("disco/parse.json");
    let mut kinds = Vec::new();
    let mut all = Vec::new();
    for case in file["cases"].as_array().into_iter().flatten().filter(|case| case["ok"] == true) {
        let plain = bytes(&case["plain"]);
        let kind = (plain.first().copied(), plain.len() / 40);
        if plain.len() <= 300 && !kinds.contains(&kind) {
            kinds.push(kind);
            all.push(plain);
        }
    }
    all
}

fn stun() -> Vec<Vec<u8>> {
    cases("wire/stun.json", MAX_CASES, |case| Some(bytes(&case["bytes"])))
}

fn wireguard() -> Vec<Vec<u8>> {
    let file = vector("wire/wireguard.json");
    let case = &file["cases"][0];
    let mut messages = vec![
        bytes(&case["initiation"]),
        bytes(&case["response"]),
        bytes(&case["cookie"]["initiation_with_mac2"]),
    ];
    messages.retain(|message| !message.is_empty());
    messages
}

fn derp_frames() -> Vec<Vec<u8>> {
    let mut all = cases("wire/derp-recv.json", MAX_CASES, |case| {
        Some(case["frames"].as_array()?.iter().flat_map(bytes).collect())
    });
    all.extend(cases("wire/derp-session.json", 4, |case| Some(bytes(&case["client_to_server"]))));
    all.iter().map(|stream| [&[17], stream.as_slice()].concat()).collect()
}

fn derp_client() -> Vec<Vec<u8>> {
    let info = br#"{"version":2,"TokenBucketBytesPerSecond":100000,"TokenBucketBytesBurst":90000}"#;
    let packet = [&[0x05][..], &[9; 32], &[4, 0, 0, 0, 1, 2, 3, 4]].concat();
    let frames: [(u8, &[u8]); 6] = [
        (7, &packet),
        (7, &[6]),
        (7, b"\x08\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99\x01"),
        (7, b"\x1212345678"),
        (7, b"\x14trouble"),
        (7, b"\x15\0\0\x10\0\0\0\x20\0"),
    ];
    let login: [(u8, &[u8]); 4] = [(1, &[]), (2, &[]), (3, info), (4, b"packet")];
    let normal = script(login.into_iter().chain(frames));
    let fast = script(login.into_iter().skip(1).chain(frames));
    vec![[&[0], normal.as_slice()].concat(), [&[1], fast.as_slice()].concat()]
}

fn dns_responses() -> Vec<Vec<u8>> {
    let mut all = cases("dns/magicdns.json", MAX_CASES, |case| Some(bytes(&case["response"])));
    let asked = b"\x04derp\x07example\x04test\0\0\x01\0\x01";
    let head = b"\x12\x34\x81\x80\0\x01\0\x02\0\0\0\0";
    let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01x\xc0\x11";
    let address = b"\x01x\xc0\x11\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
    all.push([&head[..], asked, alias, address].concat());
    all
}

fn dns_answers() -> Vec<Vec<u8>> {
    let good = b"\x81\x80\0\x01\0\x01\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
    let truncated = b"\x83\x80\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";
    let refused = b"\x81\x85\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";
    [
        script([(1, good.as_slice())]),
        script([(1, truncated.as_slice()), (0xff, &[]), (0xf1, good)]),
        script([(1, refused.as_slice()), (0x11, refused), (0x22, &[]), (0xff, &[]), (0xff, &[])]),
    ]
    .iter()
    .map(|script| [&[0], script.as_slice()].concat())
    .collect()
}

fn map_stream() -> Vec<Vec<u8>> {
    let frame = |body: &[u8]| [&u32::try_from(body.len()).unwrap_or(0).to_le_bytes()[..], body].concat();
    let plain =
        [frame(br#"{"KeepAlive":true}"#), frame(br#"{"ControlTime":"2026-11-22T22:17:21Z","Domain":"x"}"#)]
            .concat();
    let file = vector("headscale/map-stream-zstd.json");
    let mut all = vec![[&[1], plain.as_slice()].concat()];
    for frame in file["frames"].as_array().into_iter().flatten() {
        let packed = BASE64.decode(frame["frame_base64"].as_str().unwrap_or_default().as_bytes());
        all.extend(packed.ok().map(|packed| [&[2], packed.as_slice()].concat()));
    }
    all.truncate(4);
    all
}

/// The steps of the reference's streams, one map response per line.
fn netmap() -> Vec<Vec<u8>> {
    cases("netmap/hand-picked.json", MAX_CASES, |case| {
        let steps = case["steps"].as_array()?.iter();
        let lines: Vec<String> = steps.map(|step| step.get("response").unwrap_or(step).to_string()).collect();
        Some(lines.join("\n").into_bytes())
    })
}

fn netmap_cache() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for stream in netmap() {
        let mut session = tsrs_control_netmap::Session::new();
        for line in stream.split(|byte| *byte == b'\n') {
            let Ok(update) = session.handle_frame(line, jiff::Timestamp::UNIX_EPOCH) else { break };
            let Some(netmap) = update.netmap else { break };
            let mut cache = Vec::new();
            if tsrs_control_netmap::write_cache(&netmap, &mut cache).is_ok() {
                all.push(cache);
                break;
            }
        }
    }
    all.truncate(3);
    all
}

fn replies() -> Vec<Vec<u8>> {
    let calls = vector("headscale/register.json");
    let mut all: Vec<Vec<u8>> = Vec::new();
    for call in calls.as_array().into_iter().flatten().take(5) {
        all.extend([&call["Request"], &call["Body"]].map(|body| body.to_string().into_bytes()));
    }
    all.extend(
        [
            json!({"legacyPublicKey": "mkey:00", "publicKey": format!("mkey:{}", "11".repeat(32))}),
            json!({"nodeKeyChallenge": format!("chalpub:{}", "22".repeat(32))}),
            json!({"URL": "https://control.test/ping", "Types": "c2n", "Payload": "R0VUIC9lY2hv", "IP": "100.64.0.1"}),
            json!({"Text": "x", "URL": "https://a.test", "ShouldWait": true}),
            json!({"GenesisAUM": "AQID", "DisablementSecret": "BAUG"}),
            json!({"Head": "A".repeat(52), "Ancestors": ["B".repeat(52)], "MissingAUMs": ["AQID", null]}),
            json!({"NeedSignatures": [{"NodeID": 3, "RotationPubkey": "AQID"}], "Signatures": ["AQID"]}),
        ]
        .map(|value| value.to_string().into_bytes()),
    );
    all
}

fn agent_requests() -> Vec<Vec<u8>> {
    vec![
        br#"{"ControlURL":"https://x","RouteAll":true,"RouteAllSet":true,"AdvertiseRoutes":["10.0.0.0/8"],"AdvertiseRoutesSet":true,"AutoUpdateSet":{"ApplySet":true},"hostname":null}"#.to_vec(),
        br#"{"UpdatePrefs":{"WantRunning":true,"Hostname":"h","NetfilterMode":2},"AuthKey":"tskey-auth-x"}"#.to_vec(),
        b"131".to_vec(),
        b"TSMP".to_vec(),
        format!(r#"{{"NodeKey":"nodekey:{}","RotationPublic":"AAAA"}}"#, "22".repeat(32)).into_bytes(),
        br#"{"AddKeys":[{"Kind":1,"Votes":2,"Public":"AQID","Meta":{"a":"b"}}],"RemoveKeys":null,"ReSign":true}"#.to_vec(),
        br#"{"Keys":[{"Kind":1,"Votes":1,"Public":"AQID","Meta":null}],"DisablementValues":["AQID"],"SupportDisablement":null}"#.to_vec(),
        br#"{"TSKey":"tskey-auth-x","TKAKey":"nlpriv:00"}"#.to_vec(),
        br#"{"Keys":["AQID"],"ForkFrom":""}"#.to_vec(),
    ]
}

fn lock_status() -> Vec<u8> {
    let inner = json!({"SigKind": 1, "Pubkey": "bnA=", "KeyID": "AQID", "Signature": null, "Nested": null, "WrappingPubkey": "AQ=="});
    let signature = json!({"SigKind": 2, "Nested": inner});
    json!({
        "Enabled": true, "Head": vec![7; 32], "PublicKey": format!("nlpub:{}", "11".repeat(32)), "NodeKeySigned": true,
        "NodeKeySignature": signature, "TrustedKeys": [{"Kind": "25519", "Votes": 2, "Metadata": {"a": "b"}}],
        "FilteredPeers": [{"Name": "a.b.", "ID": 3, "TailscaleIPs": ["100.64.0.3"], "Reason": "not signed"}],
        "StateID": 9, "Standing": "shut", "Problem": "gone",
    })
    .to_string()
    .into_bytes()
}

fn agent_answers() -> Vec<Vec<u8>> {
    let mut all = vec![
        serde_json::to_vec(&tsrs_agent_localapi::Prefs::default()).unwrap_or_default(),
        serde_json::to_vec(&tsrs_agent_localapi::Status::default()).unwrap_or_default(),
        br#"{"Version":"1","State":6,"Prefs":null,"Engine":{"RBytes":1,"WBytes":2},"Health":{"Warnings":{}}}"#.to_vec(),
        br#"{"IP":"100.64.0.2","NodeIP":"100.64.0.2","NodeName":"x","LatencySeconds":0.01,"Endpoint":"1.2.3.4:5"}"#.to_vec(),
    ];
    let recorded = vector("localapi/1.96.4.json");
    for exchange in
        recorded.as_object().into_iter().flatten().flat_map(|(_, run)| run["exchanges"].as_array()).flatten()
    {
        let body = exchange["response"]["body"]["json"].to_string();
        if body.starts_with('{') && (100..MAX_LEN).contains(&body.len()) && all.len() < 4 + MAX_CASES {
            all.push(body.as_bytes().to_vec());
        }
    }
    all.push(lock_status());
    all.push(br#"[{"Hash":[0,1],"Change":"add-key","Raw":"AQID"}]"#.to_vec());
    all.push(br#"{"Secret":"disablement-secret:AB","Value":"disablement:cd"}"#.to_vec());
    all
}

fn takeover() -> Vec<u8> {
    let profiles =
        json!({"ab12": {"ID": "ab12", "Key": "profile-ab12", "Name": "me@example.test", "NodeID": "n1"}});
    let prefs = json!({
        "ControlURL": "https://control.test",
        "Hostname": "h",
        "Config": {"PrivateNodeKey": format!("privkey:{}", "33".repeat(32)), "UserProfile": {"ID": 1, "LoginName": "me"}, "NodeID": "n1"},
    });
    let (profiles, prefs) = (profiles.to_string(), prefs.to_string());
    script([(0, profiles.as_bytes()), (1, prefs.as_bytes()), (2, b"profile-ab12")])
}

fn state_file() -> Vec<u8> {
    let lock = json!({
        "StateID": "1:2", "Genesis": "A".repeat(52), "Head": "B".repeat(52), "DisablementValues": ["66".repeat(32)],
    });
    let profile = json!({
        "Profile": {"ID": "ab12", "Key": "profile-ab12", "Name": "me@example.test"},
        "Prefs": tsrs_agent_localapi::Prefs::default(),
        "NodeKey": format!("privkey:{}", "33".repeat(32)),
        "LockKey": format!("nlpriv:{}", "55".repeat(64)),
        "User": {"ID": 1, "LoginName": "me@example.test", "DisplayName": "Me"},
        "NodeID": "n1CNTRL",
        "Lock": lock,
        "DisallowedTKAStateIDs": ["3:4"],
    });
    json!({
        "Version": 1,
        "LeftLocks": [{"ControlURL": "https://x.test", "UserID": 7, "Lock": lock, "LockAwaited": true}],
        "MachineKey": format!("privkey:{}", "44".repeat(32)),
        "CurrentProfile": "ab12",
        "Profiles": {"profile-ab12": profile},
    })
    .to_string()
    .into_bytes()
}

/// Messages with a fixed part and a few attributes each, as the kernel sends them.
fn netlink() -> Vec<Vec<u8>> {
    let attr = |kind: u16, payload: &[u8]| {
        let len = u16::try_from(4 + payload.len()).unwrap_or(0);
        let mut out = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), payload].concat();
        out.resize(out.len().next_multiple_of(4), 0);
        out
    };
    let message = |kind: u16, parts: &[&[u8]]| {
        let payload = parts.concat();
        let len = u32::try_from(16 + payload.len()).unwrap_or(0);
        [
            &len.to_ne_bytes()[..],
            &kind.to_ne_bytes(),
            &[2, 0],
            &7_u32.to_ne_bytes(),
            &0_u32.to_ne_bytes(),
            &payload,
        ]
        .concat()
    };
    let link = message(
        16,
        &[
            &[0, 0, 1, 0, 3, 0, 0, 0, 0x43, 0, 1, 0, 0, 0, 0, 0],
            &attr(3, b"eth0\0"),
            &attr(4, &1500_u32.to_ne_bytes()),
        ],
    );
    let address = message(
        20,
        &[
            &[2, 24, 0, 0, 3, 0, 0, 0],
            &attr(1, &[192, 0, 2, 1]),
            &attr(2, &[192, 0, 2, 1]),
            &attr(3, b"eth0\0"),
        ],
    );
    let hop = [&[16, 0, 0, 0][..], &3_u32.to_ne_bytes(), &attr(5, &[192, 0, 2, 254])].concat();
    let route = message(
        24,
        &[
            &[2, 24, 0, 0, 52, 3, 0, 1, 0, 0, 0, 0],
            &attr(1, &[10, 0, 0, 0]),
            &attr(5, &[192, 0, 2, 254]),
            &attr(4, &3_u32.to_ne_bytes()),
            &attr(9, &hop),
            &attr(15, &52_u32.to_ne_bytes()),
        ],
    );
    let rule = message(
        32,
        &[
            &[2, 0, 0, 0, 52, 0, 0, 1, 0, 0, 0, 0],
            &attr(6, &5210_u32.to_ne_bytes()),
            &attr(10, &0x80000_u32.to_ne_bytes()),
            &attr(16, &0x00ff_0000_u32.to_ne_bytes()),
            &attr(15, &254_u32.to_ne_bytes()),
        ],
    );
    let hook = [attr(1, &1_u32.to_be_bytes()), attr(2, &0_u32.to_be_bytes())].concat();
    let chain = message(
        0x0a03,
        &[
            &[1, 0, 0, 0],
            &attr(1, b"filter\0"),
            &attr(3, b"input\0"),
            &attr(4, &hook),
            &attr(5, &0_u32.to_be_bytes()),
            &attr(7, b"filter\0"),
        ],
    );
    let comment = b"\0\x14tsrs-agent approved\0";
    let nft_rule = message(
        0x0a06,
        &[
            &[1, 0, 0, 0],
            &attr(1, b"filter\0"),
            &attr(2, b"input\0"),
            &attr(3, &7_u64.to_be_bytes()),
            &attr(7, comment),
        ],
    );
    let removed = message(0x0a08, &[&[1, 0, 0, 0], &attr(1, b"filter\0"), &attr(7, comment)]);
    vec![[link, address].concat(), [route, rule].concat(), [chain, nft_rule, removed].concat()]
}

/// A self-signed certificate with an Ed25519 key for `derp.example.test`.
const CERTIFICATE: &str = "3082014f30820101a003020102021451fedf55dd148f834e1eb88f017ee7479d0932bc300506032b6570301c311a301806035504030c11646572702e6578616d706c652e746573743020170d3236313132353033313932345a180f32313039303131343033313932345a301c311a301806035504030c11646572702e6578616d706c652e74657374302a300506032b65700321004cfdd9ded52fed5c7a38021cd672542ec9f2cc8342d7b28f968fa528fcff2e36a3533051301d0603551d0e0416041402ab299342d495df16e41b3dbce106753b8e703b301f0603551d2304183016801402ab299342d495df16e41b3dbce106753b8e703b300f0603551d130101ff040530030101ff300506032b6570034100213164398c49bdb92fc367c5de7809d822ea925f9143d114a7255c57897ed7dc2aa251ffa7427e2647648f1b5787edcbbade3167a7daed21692ea4313c46c904";
