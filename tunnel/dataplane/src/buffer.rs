//! Superbuffers: the unit of work of the fast path, and the pool they come from.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;

/// Bytes of a superbuffer: the largest UDP payload, and the most that the kernel joins to one message.
pub const SUPERBUFFER_LEN: usize = 65_536;

/// Room for a run of packets that travel together, in wire layout. Its memory is touched only as far as it was used.
#[derive(Debug)]
pub struct Superbuffer(Box<[u8]>);

impl Superbuffer {
    /// A buffer outside of any pool.
    pub fn new() -> Self {
        Self(vec![0; SUPERBUFFER_LEN].into_boxed_slice())
    }
}

impl Default for Superbuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl std::ops::Deref for Superbuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Superbuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// A bounded set of superbuffers that wander between threads. Neither taking nor returning one locks; memory is
/// allocated once per buffer, when it is needed for the first time.
#[derive(Debug)]
pub struct BufferPool {
    free: ArrayQueue<Superbuffer>,
    /// Buffers that were not allocated yet.
    unallocated: AtomicUsize,
}

impl BufferPool {
    /// A pool of at most `max_count` buffers.
    pub fn new(max_count: usize) -> Self {
        Self { free: ArrayQueue::new(max_count), unallocated: AtomicUsize::new(max_count) }
    }

    /// A buffer with arbitrary content; none when all are out.
    pub fn take(&self) -> Option<Superbuffer> {
        self.free.pop().or_else(|| self.allocate())
    }

    /// Takes a buffer back.
    pub fn put(&self, buffer: Superbuffer) {
        // The queue has a place for each buffer that `allocate` gave out.
        drop(self.free.push(buffer));
    }

    fn allocate(&self) -> Option<Superbuffer> {
        self.unallocated
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .ok()
            .map(|_| Superbuffer::new())
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
        pool.put(first);
        let again = pool.take().unwrap();
        assert_eq!((again.as_ptr(), again[0], again.len()), (address, 42, SUPERBUFFER_LEN));
        pool.put(second);
        assert!(pool.take().is_some());
        assert!(pool.take().is_none());
    }

    #[test]
    fn buffer_from_elsewhere_does_not_overfill_the_pool() {
        let pool = BufferPool::new(1);
        let own = pool.take().unwrap();
        pool.put(Superbuffer::new());
        pool.put(own);
        assert!(pool.take().is_some());
        assert!(pool.take().is_none());
    }
}
