//! Which addresses sandboxes on a Docker engine's bridge network can reach.

use bollard::{
    models::ContainerCreateBody,
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RestartContainerOptionsBuilder},
};
use errand_runtime::{DockerRuntime, Found, Runtime as _};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use crate::{
    conformance::runtime::request_of,
    support::docker::{self, Image, engine, host},
};

/// A sandbox that is removed when the test ends.
struct Bridged {
    runtime: DockerRuntime,
    found: Found,
}

impl Drop for Bridged {
    fn drop(&mut self) {
        docker::remove(&self.found.name);
    }
}

impl Bridged {
    async fn new(allowed: &[&str], user: Option<&str>) -> Self {
        let allowed = allowed.iter().map(|range| (*range).to_owned()).collect();
        let runtime = DockerRuntime::new(host().as_deref(), errand::guest::program()).allowing(allowed);
        let mut request = request_of(Image::Busybox.name());
        request.spec.network_mode = "bridge".to_owned();
        request.spec.user = user.map(str::to_owned);
        let found = runtime.create(&request).await.unwrap();
        Self { runtime, found }
    }

    async fn sh(&self, script: &str) -> String {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let said = self.runtime.exec(&self.found.runtime_id, &argv).await.unwrap().collect(1 << 20).await.unwrap();
        format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
    }

    /// Starts a listener inside, and returns its address.
    async fn listen(&self) -> String {
        let argv = ["sh", "-c", "while :; do echo greetings | nc -l -p 7000; done"].map(str::to_owned);
        self.runtime.exec(&self.found.runtime_id, &argv).await.unwrap();
        self.sh("hostname -i").await.trim().to_owned()
    }

    /// The bytes that an address sends within a moment.
    async fn hear(&self, address: &str, port: u16) -> String {
        self.sh(&format!("timeout 20 nc -w 10 {address} {port} </dev/null 2>&1; true")).await
    }
}

/// A server on this machine that greets every client.
async fn greeter() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.write_all(b"greetings").await;
        }
    });
    port
}

/// This machine's address as a container sees it, and its own address.
async fn machine(sandbox: &Bridged) -> Vec<String> {
    let gateway = sandbox.sh("ip route | grep default | cut -d' ' -f3").await.trim().to_owned();
    let listed =
        std::process::Command::new("ip").args(["-4", "-o", "addr", "show", "scope", "global"]).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let own = text.lines().filter_map(|line| line.split_whitespace().nth(3)?.split('/').next().map(str::to_owned));
    own.chain([gateway]).collect()
}

#[tokio::test]
async fn bridge_network_reaches_neither_neighbours_nor_machine() {
    if engine(Image::Busybox).await.is_none() {
        return;
    }
    for user in [None, Some("65534:65534")] {
        let one = Bridged::new(&[], user).await;
        let other = Bridged::new(&[], user).await;
        let port = greeter().await;
        let neighbour = other.listen().await;
        assert!(one.sh("ip route").await.contains("default via"), "a way leads out");
        assert!(!one.hear(&neighbour, 7000).await.contains("greetings"), "the neighbour {neighbour} as {user:?}");
        for address in machine(&one).await {
            assert!(!one.hear(&address, port).await.contains("greetings"), "the machine at {address} as {user:?}");
        }
        for address in ["169.254.169.254", "10.0.0.1", "192.168.0.1", "100.64.0.1"] {
            let begun = std::time::Instant::now();
            let said = one.hear(address, 80).await;
            assert!(begun.elapsed().as_secs() < 9, "{address} is refused at once");
            assert!(said.contains("refused") || said.contains("unreachable"), "{address}: {said}");
        }
        let own = one.listen().await;
        let said =
            one.sh(&format!("for i in $(seq 50); do nc -w 1 {own} 7000 </dev/null && break; sleep 0.1; done")).await;
        assert_eq!(said, "greetings\n", "its own address");
    }
}

#[tokio::test]
async fn an_allowed_range_is_reached() {
    if engine(Image::Busybox).await.is_none() {
        return;
    }
    // The answers of the second sandbox must be able to leave it too.
    let other = Bridged::new(&["172.16.0.0/12", "192.168.0.0/16"], None).await;
    let neighbour = other.listen().await;
    let one = Bridged::new(&[&format!("{neighbour}/32")], None).await;
    let script = format!("for i in $(seq 50); do nc -w 1 {neighbour} 7000 </dev/null && break; sleep 0.1; done");
    assert_eq!(one.sh(&script).await, "greetings\n");
    let port = greeter().await;
    for address in machine(&one).await {
        assert!(!one.hear(&address, port).await.contains("greetings"), "{address}");
    }
}

#[tokio::test]
async fn every_start_of_a_sandbox_is_fenced() {
    let Some(docker) = engine(Image::Busybox).await else { return };
    let one = Bridged::new(&[], None).await;
    let port = greeter().await;
    let gateway = machine(&one).await.pop().unwrap();
    let options = RestartContainerOptionsBuilder::default().t(0).build();
    docker.restart_container(&one.found.runtime_id, Some(options)).await.unwrap();
    // A process that bypasses the runtime reaches the address, so there is something to reach.
    let past = docker::exec(&docker, &one.found.runtime_id, &format!("nc -w 5 {gateway} {port} </dev/null")).await;
    assert_eq!(past, "greetings");
    assert!(!one.hear(&gateway, port).await.contains("greetings"));
    one.runtime.stop(&one.found.runtime_id).await.unwrap();
    one.runtime.start(&one.found.runtime_id).await.unwrap();
    let past = docker::exec(&docker, &one.found.runtime_id, &format!("nc -w 5 {gateway} {port} </dev/null 2>&1")).await;
    assert!(!past.contains("greetings"), "fenced at the start");
}

#[tokio::test]
async fn next_server_puts_up_no_fence_again() {
    let Some(docker) = engine(Image::Busybox).await else { return };
    let directory = tempfile::tempdir().unwrap();
    let server = |allowed: &str| {
        DockerRuntime::new(host().as_deref(), errand::guest::program())
            .allowing(vec![allowed.to_owned()])
            .remembering(directory.path().to_owned())
    };
    let mut one = Bridged::new(&[], None).await;
    let (port, gateway) = (greeter().await, machine(&one).await.pop().unwrap());
    let steps = [("10.1.0.0/16", true), ("10.1.0.0/16", false), ("10.2.0.0/16", true), ("10.2.0.0/16", false)];
    for (allowed, is_put_up) in steps {
        one.runtime = server(allowed);
        let blocker = occupy_fence(&docker, &one.found.runtime_id).await;
        assert!(!one.hear(&gateway, port).await.contains("greetings"));
        assert_ne!(exists(&docker, &blocker).await, is_put_up, "{allowed}");
    }
    let options = RestartContainerOptionsBuilder::default().t(0).build();
    docker.restart_container(&one.found.runtime_id, Some(options)).await.unwrap();
    one.runtime = server("10.2.0.0/16");
    let blocker = occupy_fence(&docker, &one.found.runtime_id).await;
    assert!(!one.hear(&gateway, port).await.contains("greetings"));
    assert!(!exists(&docker, &blocker).await, "another life needs a fence of its own");
}

async fn exists(docker: &bollard::Docker, container: &str) -> bool {
    docker.inspect_container(container, None).await.is_ok()
}

/// Takes the name of the container that puts up a fence, so that putting one up removes this container. Returns its id.
async fn occupy_fence(docker: &bollard::Docker, container: &str) -> String {
    let name = format!("errand-fence-{container}");
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    let _ = docker.remove_container(&name, Some(options)).await;
    let body = ContainerCreateBody { image: Some(Image::Busybox.name()), ..ContainerCreateBody::default() };
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    docker.create_container(Some(options), body).await.unwrap().id
}

#[tokio::test]
async fn commands_cannot_remove_the_fence() {
    if engine(Image::Busybox).await.is_none() {
        return;
    }
    let one = Bridged::new(&[], None).await;
    let (port, gateway) = (greeter().await, machine(&one).await.pop().unwrap());
    let guest = one.runtime.guest_path();
    let said = one.sh(&format!("{guest} fence allow=0.0.0.0/0; ip route del default; ip link set eth0 down; ip addr add 172.17.255.250/16 dev eth0")).await;
    assert!(!said.contains("fenced"), "{said}");
    assert!(!one.hear(&gateway, port).await.contains("greetings"));
}
