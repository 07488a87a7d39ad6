//! Operations on all descriptors of this process from 3 on, that is, on all but the standard streams.

use std::os::fd::{AsRawFd as _, OwnedFd};

/// The first descriptor after the standard streams.
const FIRST: u32 = 3;

/// Marks every descriptor close-on-exec, so that started programs inherit none.
pub(crate) fn close_on_exec() {
    // SAFETY: only flags of descriptors change.
    #[allow(unsafe_code)]
    unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// Closes every descriptor. The caller must use nothing that owns one.
pub(crate) fn close_all() {
    close(FIRST, u32::MAX);
}

/// Closes every descriptor but one. The caller must use nothing that owns one of the others.
pub(crate) fn close_all_but(kept: &OwnedFd) {
    let kept = kept.as_raw_fd().unsigned_abs();
    close(FIRST, kept.saturating_sub(1));
    close(kept + 1, u32::MAX);
}

fn close(first: u32, last: u32) {
    if first <= last {
        // SAFETY: the callers' callers use nothing that owns one of these descriptors.
        #[allow(unsafe_code)]
        unsafe {
            libc::syscall(libc::SYS_close_range, first, last, 0);
        }
    }
}
