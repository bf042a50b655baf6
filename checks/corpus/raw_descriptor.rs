use std::os::fd::{AsRawFd as _, RawFd};
fn f(fd: RawFd) -> RawFd {
    fd
}
