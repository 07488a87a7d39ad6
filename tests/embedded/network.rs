//! Which addresses a sandbox can reach.

use std::sync::Arc;

use errand_embedded::{EmbeddedOptions, EmbeddedRuntime};
use errand_runtime::{Runtime as _, RuntimeError};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use crate::support::{
    docker::skip,
    embedded::{Root, Sandbox, machine, request, tuned},
};

#[tokio::test]
async fn network_none_has_only_its_own_loopback() {
    let Some(sandbox) = tuned(Root::Host, |spec| spec.network_mode = "none".to_owned()).await else { return };
    assert_eq!(sandbox.sh("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await, "lo\n");
    assert_eq!(sandbox.sh("cat /proc/net/route | wc -l").await.trim(), "1");
    assert_eq!(sandbox.sh("cat /etc/resolv.conf").await, "");
}

/// A sandbox with access to the network; none where that is not possible, and the test is skipped.
async fn bridged(allow_addresses: &[&str]) -> Option<Sandbox> {
    let machine = machine().await?;
    let mut wanted = request("host".to_owned());
    wanted.spec.network_mode = "bridge".to_owned();
    let allow_addresses = allow_addresses.iter().map(|range| (*range).to_owned()).collect();
    let options =
        EmbeddedOptions { allow_addresses, ..EmbeddedOptions::new(machine.data_dir(), errand::guest::program()) };
    let runtime = Arc::new(EmbeddedRuntime::new(options));
    match runtime.create(&wanted).await {
        Ok(found) => Some(Sandbox { machine, runtime, found }),
        Err(RuntimeError::Refused { detail }) if detail.starts_with("network_mode") => {
            skip(&detail);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Connects from inside and returns the bytes received.
async fn hear(sandbox: &Sandbox, address: &str, port: u16) -> String {
    sandbox.sh(&format!("timeout 5 bash -c 'cat </dev/tcp/{address}/{port}' 2>&1")).await
}

/// A server on this machine that greets every client.
async fn greeter(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            client.write_all(b"greetings").await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn bridge_leads_out_but_not_to_host_loopback() {
    let Some(outside) = other_address() else { return skip("this machine has one address only") };
    let Some(sandbox) = bridged(&[&format!("{outside}/32")]).await else { return };
    assert!(sandbox.sh("tail -n +2 /proc/net/route | cut -f2").await.contains("00000000"), "a default route");
    let port = greeter("127.0.0.1").await;
    let gateway = sandbox.sh("tail -n +2 /proc/net/route | awk '$2 == \"00000000\" {print $3}'").await;
    let number = u32::from_str_radix(gateway.lines().next().unwrap(), 16).unwrap();
    let gateway = std::net::Ipv4Addr::from(number.to_le_bytes()).to_string();
    for address in ["127.0.0.1", &gateway, "169.254.1.1"] {
        assert!(!hear(&sandbox, address, port).await.contains("greetings"), "{address} leads to the loopback");
    }
    // An address of this machine that differs from the sandbox's own and that the operator allows. It stands for the outside world.
    let port = greeter("0.0.0.0").await;
    assert_eq!(hear(&sandbox, &outside, port).await, "greetings");
}

/// Python that connects to an address in every way open to a process, and reports the results. Not every way needs a route.
const TRYING: &str = "
import errno, socket, struct, sys, time
addresses, port = sys.argv[2:], int(sys.argv[1])
device = socket.if_indextoname(2) if len(socket.if_nameindex()) > 1 else 'lo'
def stream(address):
    return socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_STREAM)
def bound(address):
    one = stream(address)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    return one
for address in addresses:
    for make in (stream, bound):
        one = make(address)
        # The refusal does not find a socket that is bound to a device: that one waits in vain.
        one.settimeout(10 if make is stream else 1)
        begun = time.monotonic()
        try:
            one.connect((address, port))
            print(address, make.__name__, 'REACHED')
        except OSError as error:
            if time.monotonic() - begun > 5:
                print(address, make.__name__, 'TOOK LONG')
    if ':' not in address:
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagram.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        chosen = struct.pack('iii', socket.if_nametoindex(device), 0, 0)
        for extra in ([], [(socket.IPPROTO_IP, 8, chosen)]):
            try:
                datagram.sendmsg([b'from inside'], extra, 0, (address, port))
            except OSError:
                pass
print('tried')
";

/// Every address of this machine except its loopback addresses.
fn addresses() -> Vec<String> {
    let listed = std::process::Command::new("ip").args(["-o", "addr", "show"]).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let found = text.lines().filter_map(|line| line.split_whitespace().nth(3)?.split('/').next().map(str::to_owned));
    found.filter(|address| !address.starts_with("127.") && address != "::1" && !address.starts_with("fe80")).collect()
}

#[tokio::test]
async fn bridge_network_reaches_no_private_address() {
    if !std::path::Path::new("/usr/bin/python3").exists() {
        return skip("no /usr/bin/python3 for what is tried inside");
    }
    let Some(sandbox) = bridged(&[]).await else { return };
    let Some(other) = bridged(&[]).await else { return };
    let listener = TcpListener::bind("[::]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let datagrams = std::net::UdpSocket::bind(("0.0.0.0", port)).unwrap();
    datagrams.set_nonblocking(true).unwrap();
    // A listener in the other sandbox, on each of its addresses.
    other
        .runtime
        .exec(other.id(), &["python3", "-m", "http.server", &port.to_string()].map(str::to_owned))
        .await
        .unwrap();
    let mut tried = addresses();
    tried.extend(other.sh("hostname -I").await.split_whitespace().map(str::to_owned));
    tried.extend(
        ["10.0.0.1", "100.64.0.1", "169.254.169.254", "169.254.1.1", "172.16.0.1", "192.168.0.1"].map(str::to_owned),
    );
    tried.extend(["224.0.0.1", "255.255.255.255", "fd00:ec2::254", "fe80::1"].map(str::to_owned));
    sandbox.runtime.put_file(sandbox.id(), "/workspace/try.py", TRYING.as_bytes(), 0o644).await.unwrap();
    let said = sandbox.sh(&format!("python3 /workspace/try.py {port} {}", tried.join(" "))).await;
    assert_eq!(said, "tried\n");
    assert!(datagrams.recv(&mut [0; 32]).is_err(), "a datagram came out");
    assert!(futures_util::future::FutureExt::now_or_never(listener.accept()).is_none(), "a connection came out");
    // The sandbox's own addresses work.
    let own = "python3 -m http.server 8099 >/dev/null 2>&1 & for a in 127.0.0.1 $(hostname -I | cut -d' ' -f1); do \
               for i in $(seq 100); do (exec 3<>/dev/tcp/$a/8099) 2>/dev/null && echo reached && break; sleep 0.1; done; done; kill %1";
    assert_eq!(sandbox.sh(&format!("bash -c '{}'", own.replace('\'', "\""))).await, "reached\nreached\n");
}

/// An address of this machine on an interface without the default route.
fn other_address() -> Option<String> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    let default = routes.lines().skip(1).find(|line| line.split('\t').nth(1) == Some("00000000"))?;
    let default = default.split('\t').next()?.to_owned();
    let listed = std::process::Command::new("ip").args(["-4", "-o", "addr", "show", "up"]).output().ok()?;
    String::from_utf8_lossy(&listed.stdout).lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (interface, address) = (*words.get(1)?, words.get(3)?.split('/').next()?);
        (interface != "lo" && interface != default).then(|| address.to_owned())
    })
}
