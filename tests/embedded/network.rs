//! What can be reached from a sandbox.

use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use crate::support::{
    docker::skip,
    embedded::{Root, Sandbox, tuned},
};

#[tokio::test]
async fn without_a_network_there_is_only_its_own_loopback() {
    let Some(sandbox) = tuned(Root::Host, |spec| spec.network_mode = "none".to_owned()).await else { return };
    assert_eq!(sandbox.sh("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await, "lo\n");
    assert_eq!(sandbox.sh("cat /proc/net/route | wc -l").await.trim(), "1");
    assert_eq!(sandbox.sh("cat /etc/resolv.conf").await, "");
}

/// A sandbox with a way out; none, and the test is skipped, where it cannot have one.
async fn bridged() -> Option<Sandbox> {
    if !std::path::Path::new("/usr/bin/pasta").exists() {
        skip("no pasta");
        return None;
    }
    tuned(Root::Host, |spec| spec.network_mode = "bridge".to_owned()).await
}

/// Connects from inside and returns what comes.
async fn hear(sandbox: &Sandbox, address: &str, port: u16) -> String {
    sandbox.sh(&format!("timeout 5 bash -c 'cat </dev/tcp/{address}/{port}' 2>&1")).await
}

/// A server on this machine that greets whoever comes.
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
async fn a_bridge_leads_out_and_not_to_the_loopback_of_the_machine() {
    let Some(sandbox) = bridged().await else { return };
    assert!(sandbox.sh("tail -n +2 /proc/net/route | cut -f2").await.contains("00000000"), "a default route");
    let port = greeter("127.0.0.1").await;
    let gateway = sandbox.sh("tail -n +2 /proc/net/route | awk '$2 == \"00000000\" {print $3}'").await;
    let number = u32::from_str_radix(gateway.lines().next().unwrap(), 16).unwrap();
    let gateway = std::net::Ipv4Addr::from(number.to_le_bytes()).to_string();
    for address in ["127.0.0.1", &gateway, "169.254.1.1"] {
        assert!(!hear(&sandbox, address, port).await.contains("greetings"), "{address} leads to the loopback");
    }
    // An address of this machine that is not the one that the sandbox has as its own stands for the world.
    let Some(outside) = other_address() else { return skip("this machine has one address only") };
    let port = greeter("0.0.0.0").await;
    assert_eq!(hear(&sandbox, &outside, port).await, "greetings");
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
