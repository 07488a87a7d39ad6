//! Finds out what a process is blocked on, from the system calls of its threads as `/proc/PID/task/TID/syscall` shows them.
//!
//! | call | waits for |
//! |---|---|
//! | `read` and its kind, `recv…`, `accept…`, `splice`, `tee`, `sendfile` | its descriptor |
//! | `select`, `pselect6` | the set to be read, in the memory of the process |
//! | `poll`, `ppoll` | the entries with `POLLIN`, in the memory of the process |
//! | `epoll_wait`, `epoll_pwait`, `epoll_pwait2` | the entries with `EPOLLIN`, in the fdinfo of the epoll; one within another too |
//! | `io_uring_enter` | an unknown descriptor, when the ring polls for reading: the kernel shows the operation and not the descriptor. So it counts only if the process has no other descriptor that it could be, see [`has_nothing_else`] |
//!
//! Timeouts are ignored: an event loop nearly always has one.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _},
};

/// The most threads of a process that are examined.
const THREADS: usize = 512;
/// The most descriptors of a process, or of one call, that are examined.
const DESCRIPTORS: u64 = 4096;
/// The most bytes of a file in `/proc` that are read.
const TEXT_LIMIT: u64 = 256 * 1024;
/// The maximum nesting depth of epolls.
const DEPTH: u32 = 4;
/// Events of poll and epoll that mean readable.
const READABLE: u32 = (libc::POLLIN | libc::POLLRDNORM).cast_unsigned() as u32;
/// Operations of a ring that read, or wait until something can be read: readv, `read_fixed`, `poll_add`, read, `read_multishot`.
const RING_READS: [u32; 5] = [1, 4, 6, 22, 49];

/// What the threads of one process are blocked on, in order to read it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Awaited {
    /// Descriptors.
    pub(super) descriptors: BTreeSet<u64>,
    /// Whether a ring waits for an unknown descriptor.
    pub(super) by_ring: bool,
}

impl Awaited {
    /// Examines all threads of a process.
    pub(super) fn by(pid: u32) -> Self {
        let mut awaited = Self::default();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads.take(THREADS) {
            if let Ok(text) = fs::read_to_string(thread.path().join("syscall")) {
                awaited.add_call(pid, &text);
            }
        }
        awaited
    }

    /// True when the process waits for a socket through which others can reach it.
    pub(super) fn has_network(&self, pid: u32) -> bool {
        self.descriptors.iter().any(|descriptor| is_network(pid, *descriptor))
    }

    /// Adds what one thread waits for. None when the thread does not wait for reading, or when that cannot be known.
    fn add_call(&mut self, pid: u32, text: &str) -> Option<()> {
        let mut words = text.split_ascii_whitespace();
        let call: i64 = words.next()?.parse().ok()?;
        let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        let (first, second) = (argument()?, argument()?);
        match call {
            libc::SYS_read | libc::SYS_readv | libc::SYS_pread64 | libc::SYS_preadv | libc::SYS_preadv2 => {
                self.descriptors.insert(first);
            }
            libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_recvmmsg | libc::SYS_accept | libc::SYS_accept4 => {
                self.descriptors.insert(first);
            }
            libc::SYS_splice | libc::SYS_tee => {
                self.descriptors.insert(first);
            }
            libc::SYS_sendfile => {
                self.descriptors.insert(second);
            }
            libc::SYS_pselect6 => self.add_selected(pid, first, second)?,
            libc::SYS_ppoll => self.add_polled(pid, first, second)?,
            libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => self.add_epoll(pid, first, DEPTH)?,
            libc::SYS_io_uring_enter => self.by_ring |= ring_reads(&proc_text(pid, "fdinfo", first)?),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_select => self.add_selected(pid, first, second)?,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll => self.add_polled(pid, first, second)?,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait => self.add_epoll(pid, first, DEPTH)?,
            _ => {}
        }
        Some(())
    }

    /// Adds the descriptors below `count` in the `fd_set` at an address. An address of 0 means an empty set.
    fn add_selected(&mut self, pid: u32, count: u64, address: u64) -> Option<()> {
        let count = count.min(DESCRIPTORS);
        if address == 0 {
            return None;
        }
        // The kernel reads whole words. The lowest bytes come first on every architecture in use.
        let set = memory(pid, address, count.div_ceil(8))?;
        let is_set = |number: &u64| {
            let byte = usize::try_from(*number / 8).ok().and_then(|index| set.get(index));
            byte.is_some_and(|byte| byte >> (number % 8) & 1 == 1)
        };
        self.descriptors.extend((0..count).filter(is_set));
        Some(())
    }

    /// Adds the descriptors of `count` times `struct pollfd` at an address.
    fn add_polled(&mut self, pid: u32, address: u64, count: u64) -> Option<()> {
        let entries = memory(pid, address, count.min(DESCRIPTORS) * 8)?;
        for entry in entries.chunks_exact(8) {
            let descriptor = i32::from_ne_bytes(*entry.first_chunk()?);
            let events = u16::from_ne_bytes([entry[4], entry[5]]);
            if u32::from(events) & READABLE != 0 {
                // The kernel skips negative descriptors too.
                self.descriptors.extend(u64::try_from(descriptor).ok());
            }
        }
        Some(())
    }

    /// Adds the descriptors of an epoll.
    fn add_epoll(&mut self, pid: u32, epoll: u64, depth: u32) -> Option<()> {
        for (descriptor, inode) in epoll_entries(&proc_text(pid, "fdinfo", epoll)?) {
            // The descriptor's number may belong to another file by now.
            let file = fs::metadata(format!("/proc/{pid}/fd/{descriptor}")).ok();
            if file.is_none_or(|file| file.ino() != inode) {
                continue;
            }
            if depth > 1 && link(pid, descriptor).is_some_and(|link| link == "anon_inode:[eventpoll]") {
                self.add_epoll(pid, descriptor, depth - 1);
            } else {
                self.descriptors.insert(descriptor);
            }
        }
        Some(())
    }
}

/// True when `is_input` holds for a descriptor of the process and no other descriptor could wake the process: then it is known what a ring
/// waits for, although the kernel does not show it.
pub(super) fn has_nothing_else(pid: u32, is_input: impl Fn(u64) -> bool) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let mut found = false;
    for (index, entry) in entries.enumerate() {
        let number = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse().ok());
        let Some(descriptor) = number.filter(|_| index as u64 != DESCRIPTORS) else { return false };
        if is_input(descriptor) {
            found = true;
        } else if can_wake(pid, descriptor) {
            return false;
        }
    }
    found
}

/// Whether a read of this descriptor could block.
fn can_wake(pid: u32, descriptor: u64) -> bool {
    let (Some(link), Ok(file)) = (link(pid, descriptor), fs::metadata(format!("/proc/{pid}/fd/{descriptor}"))) else {
        return true;
    };
    let kind = file.file_type();
    if link.starts_with("anon_inode:") {
        return link != "anon_inode:[io_uring]";
    }
    if kind.is_file() || kind.is_dir() || kind.is_block_device() {
        return false;
    }
    // `/dev/null` and similar devices never block.
    if kind.is_char_device() && rustix::fs::major(file.rdev()) == 1 {
        return false;
    }
    !is_write_only(pid, descriptor)
}

fn is_write_only(pid: u32, descriptor: u64) -> bool {
    let text = proc_text(pid, "fdinfo", descriptor).unwrap_or_default();
    let flags = text.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE == libc::O_WRONLY)
}

/// Whether this is a network socket. A Unix socket is none: event loops use such sockets to wake themselves.
fn is_network(pid: u32, descriptor: u64) -> bool {
    if !link(pid, descriptor).is_some_and(|link| link.starts_with("socket:")) {
        return false;
    }
    let mut protocol = [0; 64];
    let path = format!("/proc/{pid}/fd/{descriptor}");
    // If the kernel does not tell the protocol, the socket counts as a network socket.
    rustix::fs::getxattr(path, "system.sockprotoname", &mut protocol[..])
        .map_or(true, |size| !protocol.get(..size).is_some_and(|name| name.starts_with(b"UNIX")))
}

fn link(pid: u32, descriptor: u64) -> Option<String> {
    fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).ok()?.into_os_string().into_string().ok()
}

/// The beginning of a `/proc` file about a descriptor.
fn proc_text(pid: u32, directory: &str, descriptor: u64) -> Option<String> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/{directory}/{descriptor}"))
        .ok()?
        .take(TEXT_LIMIT)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

fn memory(pid: u32, address: u64, size: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    File::open(format!("/proc/{pid}/mem")).ok()?.read_exact_at(&mut bytes, address).ok()?;
    Some(bytes)
}

/// Descriptor and inode of the entries that wait for readability.
fn epoll_entries(fdinfo: &str) -> Vec<(u64, u64)> {
    let entry = |line: &str| {
        let rest = line.strip_prefix("tfd:")?;
        let (descriptor, rest) = rest.split_once("events:")?;
        let (events, rest) = rest.split_once("data:")?;
        let inode = rest.split_once("ino:")?.1.split(' ').next()?;
        let hex = |word: &str| u64::from_str_radix(word.trim(), 16).ok();
        let readable = hex(events)? & u64::from(READABLE) != 0;
        readable.then_some((descriptor.trim().parse().ok()?, hex(inode)?))
    };
    fdinfo.lines().filter_map(entry).collect()
}

/// Whether a ring polls for reading. A ring that only waits for a timer or a disk does not.
fn ring_reads(fdinfo: &str) -> bool {
    let polled = fdinfo.lines().skip_while(|line| *line != "PollList:").skip(1);
    polled
        .map_while(|line| line.trim_start().strip_prefix("op=")?.split(',').next()?.parse().ok())
        .any(|operation: u32| RING_READS.contains(&operation))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        os::{
            fd::{AsRawFd as _, RawFd},
            unix::net::UnixStream,
        },
        time::{Duration, Instant},
    };

    use super::*;

    /// Runs `block`, which waits for the reading end of a pipe, until that wait is detected.
    fn is_seen(what: &str, block: impl FnOnce(RawFd, RawFd) + Send + 'static) {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let (other, _keep) = std::io::pipe().expect("a pipe");
        let (input, second) = (reader.as_raw_fd(), other.as_raw_fd());
        let blocked = std::thread::spawn(move || block(input, second));
        let deadline = Instant::now() + Duration::from_secs(10);
        let wanted = u64::try_from(input).expect("a number");
        while !Awaited::by(std::process::id()).descriptors.contains(&wanted) {
            assert!(Instant::now() < deadline, "{what} was not seen");
            std::thread::yield_now();
        }
        writer.write_all(b"x").expect("written");
        blocked.join().expect("woken");
    }

    fn pollfd(fd: RawFd, events: i16) -> libc::pollfd {
        libc::pollfd { fd, events, revents: 0 }
    }

    fn epoll_of(descriptors: &[(RawFd, libc::c_int)]) -> RawFd {
        // SAFETY: takes numbers, and structures that live until the calls return.
        #[allow(unsafe_code)]
        unsafe {
            let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            for (descriptor, events) in descriptors {
                let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: 0 };
                assert_eq!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, *descriptor, &raw mut event), 0);
            }
            epoll
        }
    }

    #[test]
    fn every_blocking_system_call_is_detected() {
        // SAFETY: every pointer is to a value that lives until the call returns.
        #[allow(unsafe_code)]
        unsafe {
            is_seen("read", |input, _| {
                let mut byte = 0u8;
                libc::read(input, (&raw mut byte).cast(), 1);
            });
            is_seen("poll", |input, other| {
                let mut all = [pollfd(other, 0), pollfd(-1, libc::POLLIN), pollfd(input, libc::POLLIN)];
                libc::poll(all.as_mut_ptr(), 3, 20_000);
            });
            is_seen("ppoll", |input, other| {
                let mut all = [pollfd(other, libc::POLLIN), pollfd(input, libc::POLLIN | libc::POLLPRI)];
                libc::ppoll(all.as_mut_ptr(), 2, std::ptr::null(), std::ptr::null());
            });
            is_seen("select", |input, other| {
                let mut set: libc::fd_set = std::mem::zeroed();
                libc::FD_SET(input, &raw mut set);
                libc::FD_SET(other, &raw mut set);
                let null = std::ptr::null_mut();
                let mut limit = libc::timeval { tv_sec: 20, tv_usec: 0 };
                libc::select(input.max(other) + 1, &raw mut set, null, null, &raw mut limit);
            });
            is_seen("pselect", |input, _| {
                let mut set: libc::fd_set = std::mem::zeroed();
                libc::FD_SET(input, &raw mut set);
                let null = std::ptr::null_mut();
                libc::pselect(input + 1, &raw mut set, null, null, std::ptr::null(), std::ptr::null());
            });
            is_seen("epoll", |input, other| {
                let epoll = epoll_of(&[(input, libc::EPOLLIN), (other, libc::EPOLLIN)]);
                libc::epoll_wait(epoll, &mut std::mem::zeroed(), 1, 20_000);
                libc::close(epoll);
            });
            is_seen("epoll_pwait in an epoll", |input, _| {
                let inner = epoll_of(&[(input, libc::EPOLLIN | libc::EPOLLET)]);
                let outer = epoll_of(&[(inner, libc::EPOLLIN)]);
                libc::epoll_pwait(outer, &mut std::mem::zeroed(), 1, -1, std::ptr::null());
                libc::close(outer);
                libc::close(inner);
            });
        }
    }

    #[test]
    fn other_descriptors_do_not_count_as_awaited() {
        let (input, _writer) = std::io::pipe().expect("a pipe");
        let (other, mut wake) = std::io::pipe().expect("a pipe");
        let (input_fd, other_fd) = (input.as_raw_fd(), other.as_raw_fd());
        let blocked = std::thread::spawn(move || {
            let epoll = epoll_of(&[(input_fd, libc::EPOLLPRI), (other_fd, libc::EPOLLIN)]);
            // SAFETY: the event lives until the call returns.
            #[allow(unsafe_code)]
            unsafe {
                libc::epoll_wait(epoll, &mut std::mem::zeroed(), 1, 20_000);
                libc::close(epoll);
            }
        });
        let number = |descriptor: RawFd| u64::try_from(descriptor).expect("a number");
        let deadline = Instant::now() + Duration::from_secs(10);
        let awaited = loop {
            let awaited = Awaited::by(std::process::id());
            if awaited.descriptors.contains(&number(other_fd)) {
                break awaited;
            }
            assert!(Instant::now() < deadline, "nothing was seen");
        };
        assert!(!awaited.descriptors.contains(&number(input_fd)), "{awaited:?}");
        wake.write_all(b"x").expect("written");
        blocked.join().expect("woken");
    }

    #[test]
    fn only_network_sockets_are_network() {
        let (one, _two) = UnixStream::pair().expect("a pair");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let is = |descriptor: RawFd| is_network(std::process::id(), u64::try_from(descriptor).expect("a number"));
        assert!(is(listener.as_raw_fd()) && !is(one.as_raw_fd()) && !is(reader.as_raw_fd()));
    }

    /// Reads from a descriptor through a ring, and waits for the completion. Returns false if the kernel cannot create a ring.
    fn read_by_ring(descriptor: RawFd) -> bool {
        /// Indexes into the parameters of a new ring, in numbers of 4 bytes: the ring's sizes and the offsets of its parts.
        const ENTRIES: usize = 0;
        const TAIL: usize = 11;
        const ARRAY: usize = 16;
        const READ: u8 = 22;
        let mut parameters = [0u32; 30];
        let mut byte = 0u8;
        // SAFETY: the kernel has made the maps as large as it says, nothing else uses them, and the memory that it reads lives until the
        // call is done.
        #[allow(unsafe_code)]
        unsafe {
            let ring = libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr());
            let Ok(ring) = RawFd::try_from(ring) else { return false };
            if ring < 0 {
                return false;
            }
            let map = |size: usize, offset| {
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
                let at = libc::mmap(std::ptr::null_mut(), size, access, flags, ring, offset);
                assert_ne!(at, libc::MAP_FAILED);
                at.cast::<u8>()
            };
            let queue = map(parameters[ARRAY] as usize + 4 * parameters[ENTRIES] as usize, 0);
            let entry = map(64, 0x1000_0000);
            entry.write(READ);
            entry.add(4).cast::<i32>().write(descriptor);
            entry.add(8).cast::<u64>().write(u64::MAX);
            entry.add(16).cast::<u64>().write((&raw mut byte) as u64);
            entry.add(24).cast::<u32>().write(1);
            queue.add(parameters[TAIL] as usize).cast::<u32>().write_volatile(1);
            // Waits for one completion.
            libc::syscall(libc::SYS_io_uring_enter, ring, 1, 1, 1, 0, 0);
            libc::close(ring);
        }
        byte == b'x'
    }

    #[test]
    fn io_uring_reads_are_detected() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let descriptor = reader.as_raw_fd();
        let blocked = std::thread::spawn(move || read_by_ring(descriptor));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !blocked.is_finished() && !Awaited::by(std::process::id()).by_ring {
            assert!(Instant::now() < deadline, "it was not seen");
            std::thread::yield_now();
        }
        if blocked.is_finished() {
            println!("SKIPPED: this kernel makes no rings");
            return;
        }
        writer.write_all(b"x").expect("written");
        assert!(blocked.join().expect("woken"), "the ring has read");
    }

    #[test]
    fn io_uring_counts_only_when_polling_for_input() {
        let ring = |list: &str| format!("pos:\t0\nUserBufs:\t0\nPollList:\n{list}CqOverflowList:\nNAPI:\tdisabled\n");
        assert!(ring_reads(&ring("  op=22, task_works=0\n")));
        assert!(ring_reads(&ring("  op=9, task_works=0\n  op=6, task_works=0\n")));
        assert!(!ring_reads(&ring("")) && !ring_reads(&ring("  op=9, task_works=0\n")) && !ring_reads("op=22"));
    }

    #[test]
    fn has_nothing_else_finds_a_second_pipe() {
        use std::process::{Command, Stdio};
        let other = std::io::pipe().expect("a pipe");
        for (stderr, alone) in [(Stdio::null(), true), (Stdio::from(other.0), false)] {
            let mut child = Command::new("sleep");
            let child = child.arg("60").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr).spawn();
            let mut child = child.expect("sleep");
            // The dynamic loader opens files for a moment, and descriptors of other tests close only when their child processes exit.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while has_nothing_else(child.id(), |descriptor| descriptor == 0) != alone {
                assert!(std::time::Instant::now() < deadline, "not {alone}");
                std::thread::yield_now();
            }
            child.kill().expect("killed");
            child.wait().expect("reaped");
        }
    }
}
