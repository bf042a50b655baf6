//! What a record costs: each implementation that this machine can run, for sizes of text and of batch, beside `ring`.
//!
//! `cargo bench -p tsrs-base-aead`. One core; the implementations take turns, so that what others do on the machine meets all of
//! them. Shown are nanoseconds per record, the fastest of all turns and the median, and how many times as fast as `ring` that is.
//! With `-- always`, batches that would be left to `ring` are not.
#![expect(clippy::print_stdout, reason = "the program's output")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use tsrs_base_aead::{Implementation, KEY_LEN, Key, Record, TAG_LEN};

/// Bytes of text: small packets, a packet of the usual MTU, of a full one.
const TEXT_LENS: [usize; 6] = [64, 128, 256, 512, 1280, 1420];
/// Records of a batch, up to a full run of segments.
const BATCHES: [usize; 8] = [1, 2, 3, 4, 8, 16, 44, 64];
/// Turns of each implementation, and how long one lasts.
const TURNS: usize = 41;
const TURN: Duration = Duration::from_micros(400);

struct Contender {
    name: &'static str,
    key: Key,
    seal: Vec<f64>,
    open: Vec<f64>,
}

fn main() {
    let always = std::env::args().any(|argument| argument == "always");
    for text_len in TEXT_LENS {
        for batch in BATCHES {
            measure(text_len, batch, always);
        }
    }
}

fn measure(text_len: usize, batch: usize, always: bool) {
    let mut contenders: Vec<Contender> = Implementation::all()
        .map(|implementation| if always { implementation.always() } else { implementation })
        .map(|implementation| Contender {
            name: implementation.name(),
            key: Key::new(&[7; KEY_LEN], implementation),
            seal: Vec::new(),
            open: Vec::new(),
        })
        .collect();
    // As on the wire: a header of 16 bytes before each text.
    let stride = 16 + text_len + TAG_LEN;
    let mut buffer = vec![0x5a; batch * stride];
    let mut records: Vec<Record> =
        (0..batch).map(|at| Record { start: at * stride + 16, text_len, counter: 1, done: false }).collect();
    for _ in 0..TURNS {
        for contender in &mut contenders {
            let key = &contender.key;
            contender.seal.push(turn(batch, || key.seal(black_box(&mut buffer), black_box(&mut records))));
            // A copy puts the sealed text back each time; all pay for it.
            key.seal(&mut buffer, &mut records);
            let sealed = buffer.clone();
            contender.open.push(turn(batch, || {
                buffer.copy_from_slice(&sealed);
                key.open(black_box(&mut buffer), black_box(&mut records));
            }));
            assert!(records.iter().all(|record| record.done), "what was sealed opens");
        }
    }
    for way in ["seal", "open"] {
        let of = |contender: &mut Contender| {
            if way == "seal" { best(&mut contender.seal) } else { best(&mut contender.open) }
        };
        let all: Vec<_> = contenders.iter_mut().map(|contender| (contender.name, of(contender))).collect();
        let ring = all.last().map_or((1.0, 1.0), |(_, times)| *times);
        print!("{way} {text_len:5} B x {batch:2}");
        for (name, (least, median)) in &all {
            print!(" | {name}: {least:6.0} {median:6.0} ns, x {:.2} {:.2}", ring.0 / least, ring.1 / median);
        }
        println!();
    }
}

/// Nanoseconds per record.
fn turn(batch: usize, mut work: impl FnMut()) -> f64 {
    let (start, mut calls) = (Instant::now(), 0_u32);
    while start.elapsed() < TURN {
        for _ in 0..4 {
            work();
        }
        calls += 4;
    }
    #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
    let records = f64::from(calls) * batch as f64;
    start.elapsed().as_secs_f64() * 1e9 / records
}

/// The least and the median.
fn best(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}
