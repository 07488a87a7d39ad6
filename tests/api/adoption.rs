//! Which containers a caller may adopt, and what the caller is told about them.

use bollard::models::ContainerCreateBody;
use errand_proto::v1::Sandbox;
use errand_runtime::{LABEL_ADOPT_BOT, LABEL_ADOPT_TENANT};
use tonic::{Code, Status};

use super::tenants::{entry, server_with};
use crate::support::{
    client::{Session, refused},
    docker::{self, Image},
    server::Server,
};

const SECRET: &str = "correct-horse-battery-staple";

/// A server with a token for one bot of tenant red, one for all of red, one for all of blue, and one that may adopt any container.
async fn server() -> Option<Server> {
    server_with(|server| {
        let one = format!("bots = [\"{}\"]", server.bot("one"));
        let entries = [
            entry("red", "red-one", &one),
            entry("red", "red-all", ""),
            entry("blue", "blue", ""),
            entry("red", "any", "adopt = true"),
        ];
        entries.concat()
    })
    .await
}

/// Gives a container a secret and these labels.
fn labelled(labels: &[(&str, &str)]) -> impl FnOnce(&mut ContainerCreateBody) {
    let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
    move |body| {
        body.env = Some(vec![format!("PASSWORD={SECRET}")]);
        body.labels = Some(labels);
    }
}

/// The message of a refusal, without the container's name.
fn words(result: Result<Sandbox, Status>, container: &str) -> String {
    refused(result, Code::NotFound).replace(container, "NAME")
}

#[tokio::test]
async fn foreign_container_is_refused_like_missing_one() {
    let Some(server) = server().await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let session = server.session_with("red-one", "one", "session");
    let missing = words(session.adopt("no-such-container").await, "no-such-container");
    assert!(missing.contains(&format!("{LABEL_ADOPT_TENANT}=red")) && missing.contains("adopt = true"), "{missing}");
    let other = server.bot("other");
    let strangers: [&[(&str, &str)]; 4] = [
        &[],
        &[(LABEL_ADOPT_TENANT, "blue")],
        &[(LABEL_ADOPT_BOT, &session.bot)],
        &[(LABEL_ADOPT_TENANT, "red"), (LABEL_ADOPT_BOT, &other)],
    ];
    for labels in strangers {
        let container = docker::container(&docker, Image::Busybox, labelled(labels)).await;
        for name in [container.name.as_str(), &container.id, &container.id[..12], &container.id[..4]] {
            assert_eq!(words(session.adopt(name).await, name), missing, "{labels:?}");
        }
    }
    refused(session.sandbox().await, Code::NotFound);
    // A bot that already has a sandbox gets the same refusal.
    session.ensure(None).await.unwrap();
    let container = docker::container(&docker, Image::Busybox, labelled(&[])).await;
    assert_eq!(words(session.adopt(&container.name).await, &container.name), missing);
    assert_eq!(words(session.adopt("no-such-container").await, "no-such-container"), missing);
}

/// Adopts a container, and looks for its secret wherever it could be reported or stored.
async fn adopted(server: &Server, session: &Session, container: &docker::Container) {
    let sandbox = session.adopt(&container.name).await.unwrap();
    assert_eq!((sandbox.adopted, &sandbox.container_id), (true, &container.id));
    for sandbox in [sandbox, session.sandbox().await.unwrap(), session.ensure(None).await.unwrap()] {
        assert_eq!(sandbox.spec.unwrap().env.len(), 0);
    }
    let database = server.database();
    for suffix in ["", "-wal"] {
        let file = format!("{}{suffix}", database.display());
        let bytes = std::fs::read(&file).unwrap_or_default();
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "{file} holds the container's environment");
    }
    assert!(!server.log().contains(SECRET));
    session.run("exit 0").await;
}

#[tokio::test]
async fn labelled_container_is_adopted_without_its_environment() {
    let Some(server) = server().await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let session = server.session_with("red-one", "one", "session");
    let labels = [(LABEL_ADOPT_TENANT, "red"), (LABEL_ADOPT_BOT, session.bot.as_str())];
    let container = docker::container(&docker, Image::Busybox, labelled(&labels)).await;
    adopted(&server, &session, &container).await;
    // A container whose labels name no bot may be adopted by every bot of the tenant.
    let session = server.session_with("red-all", "two", "session");
    let container = docker::container(&docker, Image::Busybox, labelled(&[(LABEL_ADOPT_TENANT, "red")])).await;
    adopted(&server, &session, &container).await;
}

#[tokio::test]
async fn a_token_with_the_right_adopts_any_container() {
    let Some(server) = server().await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let container = docker::container(&docker, Image::Busybox, labelled(&[])).await;
    adopted(&server, &server.session_with("any", "one", "session"), &container).await;
    // But the token adopts no sandbox of another tenant.
    let theirs = server.session_with("blue", "theirs", "session").ensure(None).await.unwrap();
    let session = server.session_with("any", "two", "session");
    refused(session.adopt(&theirs.container_id).await, Code::FailedPrecondition);
}

#[tokio::test]
async fn without_tokens_adopting_any_container_is_a_setting() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let container = docker::container(&docker, Image::Busybox, labelled(&[])).await;
    let said = refused(server.session("bot", "session").adopt(&container.name).await, Code::NotFound);
    assert!(said.contains("--allow-adopt") && said.contains(&format!("{LABEL_ADOPT_TENANT}=local")), "{said}");
    let Some(server) = Server::on(Image::Busybox, &["--allow-adopt"]).await else { return };
    adopted(&server, &server.session("bot", "session"), &container).await;
}
