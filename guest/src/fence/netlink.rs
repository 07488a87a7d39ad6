//! Netlink messages to the kernel's packet filter. The kernel applies a batch of them as a whole or not at all.

use std::{io, time::Duration};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

/// How long the kernel may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

// See linux/netlink.h and linux/netfilter/nfnetlink.h.
const HEAD: usize = 16;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const NESTED: u16 = 0x8000;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;

/// Messages that are sent to the kernel together.
pub(super) struct Batch {
    bytes: Vec<u8>,
    asked: u32,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), asked: 0 };
        batch.put(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &[]);
        batch
    }

    /// Adds a message about a family of addresses.
    pub(super) fn add(&mut self, kind: u16, flags: u16, family: u8, attributes: &[Vec<u8>]) {
        self.asked += 1;
        self.put(SUBSYSTEM << 8 | kind, REQUEST | ACK | flags, family, 0, &attributes.concat());
    }

    fn put(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) {
        let size = HEAD + 4 + attributes.len();
        self.bytes.extend(u32::try_from(size).unwrap_or(u32::MAX).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.asked.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
    }

    /// Sends the batch and waits for the kernel's answers.
    ///
    /// # Errors
    /// The first error that the kernel reports. The kernel then applies nothing.
    pub(super) fn send(mut self) -> io::Result<()> {
        self.put(BATCH_END, REQUEST, 0, SUBSYSTEM, &[]);
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(LIMIT))?;
        if send(&socket, &self.bytes, SendFlags::empty())? != self.bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut answered = 0;
        let mut buffer = vec![0; 64 * 1024];
        while answered < self.asked {
            let (read, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
            answered += acknowledged(&buffer[..read])?;
        }
        Ok(())
    }
}

/// How many messages these answers acknowledge.
fn acknowledged(mut answers: &[u8]) -> io::Result<u32> {
    let number = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let mut taken = 0;
    while let Some(size) = number(answers, 0).and_then(|size| usize::try_from(size).ok()).filter(|size| *size >= HEAD) {
        if answers.get(4..6) == Some(&ERROR.to_ne_bytes()) {
            match number(answers, HEAD).map(u32::cast_signed) {
                Some(0) => taken += 1,
                Some(errno) => return Err(io::Error::from_raw_os_error(-errno)),
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        answers = answers.get(size.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(taken)
}

/// Encodes an attribute.
pub(super) fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let size = u16::try_from(4 + content.len()).unwrap_or(u16::MAX);
    let mut bytes = [size.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Encodes an attribute that contains other attributes.
pub(super) fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(NESTED | kind, &parts.concat())
}

/// Encodes a number as an attribute.
pub(super) fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// Encodes a text as an attribute.
pub(super) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}
