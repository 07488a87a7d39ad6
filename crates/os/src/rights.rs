//! Descriptors passed over Unix sockets (`SCM_RIGHTS`).

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
};

/// The most descriptors in one message: the standard streams of a process.
const MOST: usize = 3;

/// Sends bytes together with descriptors, at most 3. Returns how many bytes were sent; the descriptors travel with the first one.
///
/// # Errors
/// [`Errno::INVAL`] for too many descriptors, and as for sendmsg(2). A closed socket is an error and no signal.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    // The space is rounded up, so that one more descriptor can fit.
    if descriptors.len() > MOST || !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
}

/// Receives bytes into `buffer`, and adds the descriptors that came with them to `descriptors`. They are close-on-exec. A hostile sender can
/// send more than 3; the kernel closes those that do not fit, and the caller checks the number. Returns how many bytes were received; 0 when
/// the other end is closed.
///
/// # Errors
/// As for recvmsg(2).
pub fn receive(socket: impl AsFd, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_arrive_in_order_and_close_on_exec() {
        let (ours, its) = UnixStream::pair().unwrap();
        let pipes = [std::io::pipe().unwrap(), std::io::pipe().unwrap()];
        assert_eq!(send(&ours, b"ab", &[pipes[0].1.as_fd(), pipes[1].1.as_fd()]), Ok(2));
        let (mut buffer, mut descriptors) = ([0; 4], Vec::new());
        assert_eq!(receive(&its, &mut buffer, &mut descriptors), Ok(2));
        assert_eq!((&buffer[..2], descriptors.len()), (&b"ab"[..], 2));
        let inode = |descriptor: BorrowedFd<'_>| rustix::fs::fstat(descriptor).unwrap().st_ino;
        for (descriptor, (_, writer)) in descriptors.iter().zip(&pipes) {
            assert!(rustix::io::fcntl_getfd(descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            assert_eq!(inode(descriptor.as_fd()), inode(writer.as_fd()));
        }
        drop(ours);
        assert_eq!(receive(&its, &mut buffer, &mut Vec::new()), Ok(0));
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        let (ours, _its) = UnixStream::pair().unwrap();
        assert_eq!(send(&ours, b"a", &[ours.as_fd(); MOST + 1]), Err(Errno::INVAL));
    }
}
