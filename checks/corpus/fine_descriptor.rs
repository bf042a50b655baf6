use std::os::fd::{BorrowedFd, OwnedFd};
trait Binder {
    fn mark(&self, fd: BorrowedFd<'_>) -> Option<OwnedFd>;
}
