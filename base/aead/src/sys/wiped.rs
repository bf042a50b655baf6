//! Wiping the memory of a value whose type cannot wipe itself.

use std::mem::{MaybeUninit, needs_drop};
use std::sync::atomic::{Ordering, compiler_fence};

/// A value whose bytes are overwritten with zeros on drop. `T` must own nothing outside itself.
pub(crate) struct Wiped<T>(MaybeUninit<T>);

impl<T> Wiped<T> {
    /// Refused at compile time for types with something to drop: the value is wiped and not dropped.
    pub(crate) const fn new(value: T) -> Self {
        const { assert!(!needs_drop::<T>()) };
        Self(MaybeUninit::new(value))
    }

    pub(crate) const fn get(&self) -> &T {
        // SAFETY: `new` is the only constructor and initialises the value; nothing but `drop` overwrites it.
        unsafe { self.0.assume_init_ref() }
    }
}

impl<T> Drop for Wiped<T> {
    fn drop(&mut self) {
        let start = self.0.as_mut_ptr().cast::<u8>();
        for offset in 0..size_of::<T>() {
            // SAFETY: the pointer stays inside the value, which is exclusively borrowed and never read again. The write is
            // volatile so that it is not removed as dead.
            unsafe { start.add(offset).write_volatile(0) };
        }
        compiler_fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use super::*;

    #[test]
    fn no_byte_outlives_the_drop() {
        let mut wiped = ManuallyDrop::new(Wiped::new([0xa5_u8; 40]));
        assert_eq!(*wiped.get(), [0xa5; 40]);
        // SAFETY: the value is dropped once, and only its bytes are read afterwards; they are in place and initialised.
        let after = unsafe {
            ManuallyDrop::drop(&mut wiped);
            std::ptr::from_ref(&wiped).cast::<[u8; 40]>().read()
        };
        assert_eq!(after, [0; 40]);
    }
}
