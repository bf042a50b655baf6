//! Superbuffers: the unit of work of the fast path, and the pool they come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;

/// Bytes of a superbuffer: the largest UDP payload, and the most that the kernel joins to one message.
pub const SUPERBUFFER_LEN: usize = 65_536;

/// Room for a run of packets that travel together, in wire layout. Its memory is touched only as far as it was used.
///
/// One that comes from a pool goes back to it when it is dropped, whichever thread has it then.
#[derive(Debug)]
pub struct Superbuffer {
    bytes: Box<[u8]>,
    home: Option<Arc<Pool>>,
}

impl Superbuffer {
    /// A buffer outside of any pool.
    pub fn new() -> Self {
        Self { bytes: vec![0; SUPERBUFFER_LEN].into_boxed_slice(), home: None }
    }
}

impl Default for Superbuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Superbuffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            // The queue has a place for each buffer that the pool gave out.
            let _ = home.free.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl std::ops::Deref for Superbuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::ops::DerefMut for Superbuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// A bounded set of superbuffers that wander between threads. Neither taking nor returning one locks; memory is
/// allocated once per buffer, when it is needed for the first time.
#[derive(Clone, Debug)]
pub struct BufferPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    free: ArrayQueue<Box<[u8]>>,
    /// Buffers that were not allocated yet.
    unallocated: AtomicUsize,
}

impl BufferPool {
    /// A pool of at most `max_count` buffers.
    pub fn new(max_count: usize) -> Self {
        Self(Arc::new(Pool { free: ArrayQueue::new(max_count), unallocated: AtomicUsize::new(max_count) }))
    }

    /// A buffer with arbitrary content; none when all are out.
    pub fn take(&self) -> Option<Superbuffer> {
        let bytes = self.0.free.pop().or_else(|| self.0.allocate())?;
        Some(Superbuffer { bytes, home: Some(Arc::clone(&self.0)) })
    }
}

impl Pool {
    fn allocate(&self) -> Option<Box<[u8]>> {
        self.unallocated
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .ok()
            .map(|_| vec![0; SUPERBUFFER_LEN].into_boxed_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_gives_out_as_many_as_it_may_and_the_same_ones_again() {
        let pool = BufferPool::new(2);
        let mut first = pool.take().unwrap();
        first[0] = 42;
        let address = first.as_ptr();
        let second = pool.take().unwrap();
        assert!(pool.take().is_none());
        drop(first);
        let again = pool.take().unwrap();
        assert_eq!((again.as_ptr(), again[0], again.len()), (address, 42, SUPERBUFFER_LEN));
        assert!(pool.take().is_none());
        drop(second);
        assert!(pool.take().is_some());
    }

    #[test]
    fn buffer_finds_its_way_home_from_another_thread() {
        let pool = BufferPool::new(1);
        let buffer = pool.take().unwrap();
        std::thread::spawn(move || drop(buffer)).join().unwrap();
        assert!(pool.take().is_some());
    }
}
