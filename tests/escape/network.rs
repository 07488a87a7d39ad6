//! Reaching the machine over a network that the sandbox must not use.

use std::{
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

use super::pair::{USERS, pair, pair_as};

/// Python that connects to each address of the machine, and prints the results.
const CONNECTING: &str = "
import errno, socket
def connect(name, family, address):
    try:
        one = socket.socket(family)
        one.settimeout(5)
        one.connect(address)
        one.send(b'from inside')
        print(name, 'connected')
    except OSError as error:
        print(name, 'refused')
connect('loopback', socket.AF_INET, ('127.0.0.1', PORT))
connect('loopback 6', socket.AF_INET6, ('::1', PORT))
connect('outside', socket.AF_INET, ('192.0.2.1', 80))
connect('metadata', socket.AF_INET, ('169.254.169.254', 80))
connect('abstract', socket.AF_UNIX, '\\0NAME')
connect('named', socket.AF_UNIX, 'PATH')
connect('docker', socket.AF_UNIX, '/var/run/docker.sock')
connect('hypervisor', socket.AF_VSOCK, (2, 1024))
";

#[tokio::test]
async fn listeners_of_the_machine_are_unreachable() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let (name, path) = (format!("errand-{}", pair.secret()), pair.inside.machine.data_dir().join("named.sock"));
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let abstracted = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let named = UnixListener::bind(&path).unwrap();
        let script = CONNECTING
            .replace("PORT", &port.local_addr().unwrap().port().to_string())
            .replace("NAME", &name)
            .replace("PATH", &path.display().to_string());
        let expected = ["loopback", "loopback 6", "outside", "metadata", "abstract", "named", "docker", "hypervisor"];
        assert_eq!(
            pair.python(&script).await,
            expected.map(|name| format!("{name} refused\n")).concat(),
            "as {user:?}"
        );
        port.set_nonblocking(true).unwrap();
        abstracted.set_nonblocking(true).unwrap();
        named.set_nonblocking(true).unwrap();
        assert!(port.accept().is_err() && named.accept().is_err());
        assert!(abstracted.accept().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
        pair.is_unharmed().await;
    }
}

#[tokio::test]
async fn only_the_own_loopback_interface_exists() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let said = pair.sh("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; wc -l </proc/net/route; ls /sys/class/net 2>/dev/null").await;
        assert_eq!(said, "lo\n1\n", "as {user:?}");
        let calls = [
            // Raw and packet sockets, and requests to interfaces: up, and a new address.
            ("raw", libc::SYS_socket, "2, 3, 1"),
            ("packet", libc::SYS_socket, "17, 3, 768"),
            ("down", libc::SYS_ioctl, "libc.socket(2, 2, 0), 0x8914, b'lo' + b'\\0' * 38"),
        ];
        pair.are_refused(&calls, "EPERM").await;
        pair.is_unharmed().await;
    }
}

/// Families of sockets that belong to no network namespace, or to hardware, or that are doors into the kernel: AF_X25, AF_RDS, AF_LLC,
/// AF_CAN, AF_TIPC, AF_BLUETOOTH, AF_ALG, AF_NFC, AF_VSOCK, AF_KCM, AF_QIPCRTR, AF_SMC and AF_XDP.
const FAMILIES: [u32; 13] = [9, 21, 26, 29, 30, 31, 38, 39, 40, 41, 42, 43, 44];

#[tokio::test]
async fn only_network_and_unix_sockets_are_allowed() {
    let Some(mut pair) = pair().await else { return };
    let arguments = FAMILIES.map(|family| [1, 2, 3, 5].map(|kind| format!("{family}, {kind}, 0")));
    let calls: Vec<_> =
        arguments.iter().flatten().map(|arguments| ("socket", libc::SYS_socket, &**arguments)).collect();
    pair.are_refused(&calls, "EPERM").await;
    let pairs = arguments.iter().flatten().map(|arguments| format!("{arguments}, b'\\0' * 8")).collect::<Vec<_>>();
    let calls: Vec<_> = pairs.iter().map(|arguments| ("socketpair", libc::SYS_socketpair, &**arguments)).collect();
    pair.are_refused(&calls, "EPERM").await;
    let fine = "for family in (1, 2, 10, 16): call('socket', NUMBER, family, 2, 0)"
        .replace("NUMBER", &libc::SYS_socket.to_string());
    assert_eq!(pair.calling(&fine).await, "socket done\n".repeat(4));
    let fine = format!("call('pair', {}, 1, 1, 0, b'\\0' * 8)", libc::SYS_socketpair);
    assert_eq!(pair.calling(&fine).await, "pair done\n");
    pair.is_unharmed().await;
}

#[tokio::test]
async fn broadcasts_inside_are_not_received_outside() {
    let Some(mut pair) = pair().await else { return };
    let heard = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = heard.local_addr().unwrap().port();
    let script = format!(
        "import socket\none = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\none.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n\
         for address in ('127.0.0.1', '127.255.255.255', '255.255.255.255', '224.0.0.1'):\n    try:\n        \
         one.sendto(b'x', (address, {port}))\n    except OSError:\n        pass\nprint('tried')"
    );
    assert_eq!(pair.python(&script).await, "tried\n");
    heard.set_nonblocking(true).unwrap();
    assert!(heard.recv(&mut [0; 8]).is_err());
    pair.is_unharmed().await;
}
