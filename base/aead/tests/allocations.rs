//! A batch costs no allocation, whoever works.
#![expect(unsafe_code, reason = "an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tsrs_base_aead::{Implementation, KEY_LEN, Key, Record, TAG_LEN};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator as it is; counting touches a number of this thread only, which
// needs neither allocation nor destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[test]
fn sealing_and_opening_allocate_nothing() {
    for implementation in Implementation::all().flat_map(|one| [one, one.always()]) {
        let key = Key::new(&[7; KEY_LEN], implementation);
        for (text_len, batch) in [(0, 1), (64, 1), (1420, 1), (64, 64), (1420, 64), (333, 17)] {
            let stride = text_len + TAG_LEN;
            let mut buffer = vec![0x5a; batch * stride];
            let mut records: Vec<_> = (0..batch)
                .map(|at| Record { start: at * stride, text_len, counter: 1, done: false })
                .collect();
            let before = COUNT.get();
            assert!(before > 0, "the buffers were counted");
            key.seal(&mut buffer, &mut records);
            key.open(&mut buffer, &mut records);
            let after = COUNT.get();
            assert!(records.iter().all(|record| record.done));
            assert_eq!(after, before, "{implementation:?}: {batch} of {text_len} bytes");
        }
    }
}
