//! The sandbox's disk: the image of a file system, which limits what it can hold.

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

/// How long the last life of a sandbox may take to let go of its disk.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);
/// How often a free device is looked for: somebody else may take it first.
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

/// A disk that is a device, and goes with its last mount.
pub(super) struct Disk {
    device: File,
    path: String,
}

impl Disk {
    /// Makes a device of an image. The device keeps the image's lock for as long as it is there, so that none is mounted twice.
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

    /// Mounts it. Space that is freed inside is freed outside too.
    pub(super) fn mount(self, target: &Path) -> Result<(), Trouble> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        mount(&*self.path, target, c"ext4", flags, c"discard").tried(|| format!("mounting {}", self.path))?;
        // Only now: the last to let go of a device that is not mounted makes it go.
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
    // For whoever lists devices; the end of a long name says more than its beginning.
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
