//! The sandbox's disk: a file system in an image file, which limits how much the sandbox can store.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::FlockOperation,
    io::Errno,
    mount::{MountFlags, mount},
};

use super::{Tried as _, Trouble};

/// How long a previous life of the sandbox may take to release its disk.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);
/// How often to search for a free loop device: another process may take it first.
const ATTEMPTS: usize = 64;

// See loop(4).
const GET_FREE: libc::c_ulong = 0x4C82;
const CONFIGURE: libc::c_ulong = 0x4C0A;
const AUTOCLEAR: u32 = 4;
const NAME: usize = 64;

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct Config {
    descriptor: u32,
    block_size: u32,
    numbers: [u64; 5],
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    name: [u8; NAME],
    unused: [u64; 4 + 8 + 2],
    reserved: [u64; 8],
}

/// A disk attached to a loop device. The device disappears with its last mount.
pub(super) struct Disk {
    device: File,
    path: String,
}

impl Disk {
    /// Attaches an image to a loop device. The device holds the image's lock as long as the device exists, so that no image is mounted
    /// twice.
    pub(super) fn attach(image: &Path) -> Result<Self, Trouble> {
        let named = || image.display().to_string();
        let file = File::options().read(true).write(true).open(image).tried(named)?;
        lock(&file).tried(|| format!("the lock of {}", image.display()))?;
        let control = File::options().read(true).write(true).open("/dev/loop-control");
        let control = control.tried(|| "/dev/loop-control".to_owned())?;
        let mut last = Errno::BUSY;
        for _ in 0..ATTEMPTS {
            // SAFETY: takes no argument and returns a number.
            #[allow(unsafe_code)]
            let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) };
            if number < 0 {
                return Err(io::Error::last_os_error()).tried(|| "a free loop device".to_owned());
            }
            let path = format!("/dev/loop{number}");
            let device = File::options().read(true).write(true).open(&path).tried(|| path.clone())?;
            match configure(&device, &file, image) {
                Ok(()) => return Ok(Self { device, path }),
                Err(errno) => last = errno,
            }
            if last != Errno::BUSY {
                break;
            }
        }
        Err(last).tried(|| format!("a loop device for {}", image.display()))
    }

    /// Mounts the disk. Space that is freed in the sandbox is freed in the image too.
    pub(super) fn mount(self, target: &Path) -> Result<(), Trouble> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        mount(&*self.path, target, c"ext4", flags, c"discard").tried(|| format!("mounting {}", self.path))?;
        // Only after the mount: closing the last descriptor of an unmounted device detaches the device.
        drop(self.device);
        Ok(())
    }
}

fn configure(device: &File, image: &File, path: &Path) -> Result<(), Errno> {
    let mut config = Config {
        descriptor: image.as_raw_fd().unsigned_abs(),
        block_size: 0,
        numbers: [0; 5],
        number: 0,
        encryption: [0; 2],
        flags: AUTOCLEAR,
        name: [0; NAME],
        unused: [0; 14],
        reserved: [0; 8],
    };
    // For listings of devices only. Keeps the end of a long name, which says more than its beginning.
    let path = path.as_os_str().as_encoded_bytes();
    let end = &path[path.len().saturating_sub(NAME - 1)..];
    config.name[..end.len()].copy_from_slice(end);
    // SAFETY: the kernel reads one structure of this layout.
    #[allow(unsafe_code)]
    let configured = unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE as _, &raw const config) };
    if configured == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn lock(image: &File) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match rustix::fs::flock(image, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(errno) => return Err(errno.into()),
        }
    }
}
