//! Following a log while the command writes it.

use std::time::{Duration, Instant};

use errand_proto::v1::{stream_output_response::Event, task_service_client::TaskServiceClient, *};
use tonic::{Code, Streaming, transport::Endpoint};

use crate::{
    on_both_images,
    support::{
        client::{Session, bytes, ended, refused, text},
        docker::Image,
        server::Server,
        wait::soon,
    },
};

on_both_images!(many_followers_get_live_output_from_any_offset, unread_follower_does_not_slow_the_command,);

/// A log stream, and what it has delivered so far.
struct Follower {
    stream: Streaming<StreamOutputResponse>,
    position: i64,
    seen: Vec<u8>,
    finished: Option<Task>,
}

impl Follower {
    async fn open(session: &Session, task: &Task, offset: i64) -> Self {
        let request = StreamOutputRequest { task_id: task.task_id.clone(), offset, ..Default::default() };
        let stream = session.tasks().stream_output(request).await.unwrap().into_inner();
        Self { stream, position: offset, seen: Vec::new(), finished: None }
    }

    /// Takes the next event. Returns false at the end.
    async fn step(&mut self) -> bool {
        let Some(event) = soon("more of a stream comes", self.stream.message()).await.unwrap() else { return false };
        assert!(self.finished.is_none(), "nothing comes after the end");
        match event.event.unwrap() {
            Event::Output(part) => {
                assert_eq!(part.offset, self.position, "without a gap");
                let bytes = bytes(&part);
                assert_eq!(part.next_offset - part.offset, i64::try_from(bytes.len()).unwrap());
                self.position = part.next_offset;
                self.seen.extend(bytes);
            }
            Event::Finished(task) => self.finished = Some(task),
        }
        true
    }

    async fn until(&mut self, size: usize) {
        while self.seen.len() < size {
            assert!(self.step().await, "the stream ended early");
        }
    }

    async fn rest(mut self) -> (Vec<u8>, Option<Task>) {
        while self.step().await {}
        (self.seen, self.finished)
    }
}

async fn many_followers_get_live_output_from_any_offset(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let command = "for n in 1 2 3; do echo part $n; until [ -e /workspace/$n ]; do sleep 0.05; done; done; exit 5";
    let task = session.start(command).await;
    let (mut one, mut two) = (Follower::open(&session, &task, 0).await, Follower::open(&session, &task, 0).await);
    one.until(7).await;
    two.until(7).await;
    let mut three = Follower::open(&session, &task, 5).await;
    three.until(2).await;
    assert_eq!(three.seen, b"1\n");
    // One subscriber disconnects and resumes at its old position.
    drop(two);
    session.exec("touch /workspace/1").await;
    one.until(14).await;
    assert_eq!(one.seen, b"part 1\npart 2\n");
    let resumed = Follower::open(&session, &task, 7).await;
    session.exec("touch /workspace/2 /workspace/3").await;

    let task = session.finished(&task).await;
    assert_eq!(ended(&task), "exited 5");
    let all = b"part 1\npart 2\npart 3\n";
    assert_eq!(one.rest().await, (all.to_vec(), Some(task.clone())));
    assert_eq!(three.rest().await, (all[5..].to_vec(), Some(task.clone())));
    assert_eq!(resumed.rest().await, (all[7..].to_vec(), Some(task.clone())));
    // A follower may also start after the end.
    let late = Follower::open(&session, &task, 3).await;
    assert_eq!(late.rest().await, (all[3..].to_vec(), Some(task)));
}

async fn unread_follower_does_not_slow_the_command(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let size = 30_000_000;
    let command = format!("yes 0123456789abcde | head -c {size}");
    // Another task in the same sandbox, without followers.
    let begun = Instant::now();
    session.run(&command).await;
    let alone = begun.elapsed();

    let task = session.start(&format!("until [ -e /workspace/go ]; do sleep 0.05; done; {command}")).await;
    let deaf = Follower::open(&session, &task, 0).await;
    let begun = Instant::now();
    session.exec("touch /workspace/go").await;
    let task = session.finished(&task).await;
    let watched = begun.elapsed();
    assert_eq!((ended(&task).as_str(), task.output_bytes), ("exited 0", size));
    assert!(watched < alone * 4 + Duration::from_secs(5), "{watched:?} with a follower, {alone:?} without");
    // The stalled follower lost nothing: it reads what it missed from the log.
    let (seen, finished) = deaf.rest().await;
    assert_eq!(seen.len(), usize::try_from(size).unwrap());
    assert!(seen.chunks_exact(16).all(|line| line == b"0123456789abcde\n"));
    assert_eq!(finished, Some(task));
}

#[tokio::test]
async fn unread_followers_block_no_other_call() {
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    let printed = session.run("head -c 3000000 /dev/urandom").await;
    let apart = Endpoint::from_shared(server.url()).unwrap().connect().await.unwrap();
    let mut deaf = Vec::new();
    for _ in 0..40 {
        let request = StreamOutputRequest { task_id: printed.task_id.clone(), ..Default::default() };
        let mut tasks = TaskServiceClient::new(apart.clone());
        deaf.push(soon("a log opens", tasks.stream_output(request)).await.unwrap());
    }
    assert_eq!(ended(&session.run("exit 5").await), "exited 5");
    let runs = session.running("exec sleep 60").await;
    assert_eq!(ended(&session.stop(&runs, Some(30.0)).await), "stopped request 15");
    assert_eq!(session.output(&printed).await.len(), 1 << 20);
}

#[tokio::test]
async fn a_followed_text_never_splits_a_character() {
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    let slow = "printf 'x\\342'; until [ -e /workspace/1 ]; do sleep 0.05; done; \
                printf '\\202'; until [ -e /workspace/2 ]; do sleep 0.05; done; printf '\\254y'";
    let task = session.start(&format!("{slow}; yes 'aß€𐍈' | head -n 30000; printf '\\342\\202'")).await;
    let request =
        StreamOutputRequest { task_id: task.task_id.clone(), format: OutputFormat::Text.into(), ..Default::default() };
    let mut stream = session.tasks().stream_output(request).await.unwrap().into_inner();
    let (mut seen, mut position, mut touched) = (String::new(), 0, false);
    while let Some(event) = soon("more of a stream comes", stream.message()).await.unwrap() {
        let Event::Output(part) = event.event.unwrap() else { continue };
        assert_eq!(part.offset, position);
        position = part.next_offset;
        seen.push_str(&text(&part));
        if !touched {
            assert_eq!(seen, "x", "the rest of the character is still to come");
            session.exec("touch /workspace/1 /workspace/2").await;
            touched = true;
        }
    }
    assert!(seen == format!("x€y{}\u{FFFD}", "aß€𐍈\n".repeat(30000)), "the parts make up the whole");
}

#[tokio::test]
async fn unfollowed_stream_ends_at_the_current_output() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.start("echo now; sleep 300").await;
    session.until_output(&task, "now\n").await;
    let request = StreamOutputRequest { task_id: task.task_id.clone(), no_follow: true, ..Default::default() };
    let stream = session.tasks().stream_output(request).await.unwrap().into_inner();
    let follower = Follower { stream, position: 0, seen: Vec::new(), finished: None };
    assert_eq!(follower.rest().await, (b"now\n".to_vec(), None));

    let past = StreamOutputRequest { task_id: task.task_id.clone(), offset: 5, ..Default::default() };
    refused(session.tasks().stream_output(past).await.map(|_| ()), Code::OutOfRange);
    session.stop(&task, Some(0.0)).await;
}

#[tokio::test]
async fn disconnecting_follower_disturbs_no_other() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.start("yes 0123456789abcde | head -c 20000000; exit 3").await;
    let stays = Follower::open(&session, &task, 0).await;
    for _ in 0..5 {
        let mut leaves = Follower::open(&session, &task, 0).await;
        leaves.until(1).await;
    }
    let (seen, finished) = stays.rest().await;
    assert_eq!(seen.len(), 20_000_000);
    assert_eq!(ended(&finished.unwrap()), "exited 3");
}
