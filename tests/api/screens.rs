//! WatchTasks: a snapshot, then events as they are committed; continued, bounded, and only for the bots of the caller.

use std::{collections::HashSet, time::Duration};

use errand_proto::v1::{watch_tasks_response::Event, *};
use tonic::{Code, Status};

use super::tenants;
use crate::support::{
    client::{Session, ended, refused},
    docker::Image,
    server::Server,
    wait::{eventually, soon},
};

/// A stream that is read.
struct Screen {
    stream: tonic::Streaming<WatchTasksResponse>,
    cursor: String,
}

impl Screen {
    async fn of(session: &Session, request: WatchTasksRequest) -> Self {
        Self::try_of(session, request).await.unwrap()
    }

    async fn try_of(session: &Session, request: WatchTasksRequest) -> Result<Self, Status> {
        let stream = session.tasks().watch_tasks(request).await?.into_inner();
        Ok(Self { stream, cursor: String::new() })
    }

    async fn next(&mut self) -> Event {
        let next = soon("an event comes", self.stream.message()).await.unwrap().expect("the stream goes on");
        if !next.cursor.is_empty() {
            self.cursor = next.cursor;
        }
        next.event.unwrap()
    }

    /// The snapshot: whether the cursor was too old, and the tasks.
    async fn snapshot(&mut self) -> (bool, Vec<Task>) {
        let Event::SnapshotStarted(start) = self.next().await else { panic!("not the start of a snapshot") };
        let mut tasks = Vec::new();
        loop {
            match self.next().await {
                Event::Listed(task) => tasks.push(task),
                Event::SnapshotComplete(_) => return (start.cursor_too_old, tasks),
                other => panic!("{other:?} within a snapshot"),
            }
        }
    }

    /// The next event of a task that is not growth of output.
    async fn change(&mut self) -> TaskChange {
        loop {
            match self.next().await {
                Event::Changed(change) if change.event() == TaskEvent::OutputGrew => {}
                Event::Changed(change) => return change,
                Event::Progress(_) => {}
                other => panic!("{other:?} among events"),
            }
        }
    }

    /// The next events of a task, up to its end.
    async fn life(&mut self, task: &str) -> Vec<TaskEvent> {
        let mut events = Vec::new();
        while events.last() != Some(&TaskEvent::Ended) {
            let change = self.change().await;
            if change.task_id == task {
                events.push(change.event());
            }
        }
        events
    }
}

fn of_bot(session: &Session) -> WatchTasksRequest {
    WatchTasksRequest { bot_id: session.bot.clone(), ..Default::default() }
}

#[tokio::test]
async fn snapshot_precedes_events_in_order() {
    let flags = ["--stall-after", "1s", "--stall-check-interval", "200ms"];
    let Some(server) = Server::on(Image::Busybox, &flags).await else { return };
    let session = server.session("bot", "session");
    session.run("true").await;
    let running = session.running("exec sleep 600").await;
    let mut screen = Screen::of(&session, of_bot(&session)).await;
    let (too_old, listed) = screen.snapshot().await;
    assert_eq!((too_old, listed.len(), &listed[0].task_id), (false, 1, &running.task_id));

    let quick = session.start("exit 3").await;
    let all = [TaskEvent::Accepted, TaskEvent::Started, TaskEvent::Ended];
    assert_eq!(screen.life(&quick.task_id).await, all);
    let stalling =
        session.start("printf 'Password: '; mkfifo /workspace/go; read -r passed </workspace/go; sleep 0.3").await;
    for event in [TaskEvent::Accepted, TaskEvent::Started, TaskEvent::Stalled] {
        let change = screen.change().await;
        assert_eq!((change.event(), &change.task_id), (event, &stalling.task_id));
    }
    session.exec("echo go >/workspace/go").await;
    let mut rest = screen.life(&stalling.task_id).await;
    // A command that ends soon after its stall may end before it is seen to move on.
    rest.retain(|event| *event != TaskEvent::Resumed);
    assert_eq!(rest, [TaskEvent::Ended]);

    let stopped = session.stop(&running, Some(0.0)).await;
    let change = screen.change().await;
    assert_eq!((change.event(), change.status(), change.task), (TaskEvent::Ended, TaskStatus::Stopped, Some(stopped)));
}

#[tokio::test]
async fn growing_output_is_told_once_a_second() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let mut screen = Screen::of(&session, of_bot(&session)).await;
    screen.snapshot().await;
    let task = session.start("n=0; while [ $n -lt 30 ]; do echo line $n; n=$((n + 1)); sleep 0.1; done").await;
    let (mut grew, mut seen) = (0, 0);
    loop {
        let Event::Changed(change) = screen.next().await else { continue };
        match change.event() {
            TaskEvent::OutputGrew => {
                assert!(change.output_bytes > seen && change.task.is_none(), "{change:?}");
                (grew, seen) = (grew + 1, change.output_bytes);
            }
            TaskEvent::Ended => break assert_eq!(change.output_bytes, session.get(&task).await.output_bytes),
            _ => {}
        }
    }
    // 30 lines in a little more than 3 s. A busy machine takes longer.
    assert!((1..=20).contains(&grew), "{grew} times");
}

#[tokio::test]
async fn cursor_misses_no_end_across_a_reconnect() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let first = session.running("until [ -e /workspace/go ]; do sleep 0.1; done; exit 4").await;
    let mut screen = Screen::of(&session, of_bot(&session)).await;
    assert_eq!(screen.snapshot().await.1.len(), 1);
    let cursor = screen.cursor.clone();
    drop(screen);
    session.exec("touch /workspace/go").await;
    session.finished(&first).await;
    let second = session.run("exit 5").await;
    let again = WatchTasksRequest { cursor: cursor.clone(), ..of_bot(&session) };
    let mut screen = Screen::of(&session, again.clone()).await;
    assert_eq!(screen.life(&first.task_id).await, [TaskEvent::Ended]);
    assert_eq!(screen.life(&second.task_id).await, [TaskEvent::Accepted, TaskEvent::Started, TaskEvent::Ended]);

    // A new server cannot continue it: it says so, and lists what ended since the cursor.
    let running = session.running("exec sleep 600").await;
    server.kill();
    server.launch().await;
    let mut screen = Screen::of(&session, again).await;
    let (too_old, listed) = screen.snapshot().await;
    let ids: HashSet<_> = listed.iter().map(|task| task.task_id.as_str()).collect();
    assert!(too_old);
    assert_eq!(ids, [&running, &first, &second].map(|task| task.task_id.as_str()).into());
    assert_eq!(listed.len(), 3);
    let of_first = listed.iter().find(|task| task.task_id == first.task_id).unwrap();
    assert_eq!(ended(of_first), "exited 4");
    session.stop(&running, Some(0.0)).await;
    assert_eq!(screen.life(&running.task_id).await, [TaskEvent::Ended]);
    let wrong = WatchTasksRequest { cursor: "?".to_owned(), ..of_bot(&session) };
    refused(Screen::try_of(&session, wrong).await.map(|_| ()), Code::InvalidArgument);
}

#[tokio::test]
async fn unread_screen_delays_and_loses_nothing() {
    let Some(server) = Server::on(Image::Busybox, &["--max-subscriptions-per-bot", "2"]).await else { return };
    let session = server.session("bot", "session");
    let unread = session.tasks().watch_tasks(of_bot(&session)).await.unwrap().into_inner();
    let mut read = Screen::of(&session, of_bot(&session)).await;
    let refusal = Screen::try_of(&session, of_bot(&session)).await.map(|_| ());
    let said = refused(refusal, Code::ResourceExhausted);
    assert!(said.contains("streams of the bot's tasks"), "{said}");
    read.snapshot().await;
    let mut ran = Vec::new();
    for number in 0..40 {
        // Each task is 100 KiB: all of them are more than a connection holds unread.
        let command = format!("exit {number} #{}", "x".repeat(100 * 1024));
        ran.push(session.start(&command).await.task_id);
    }
    let mut left: HashSet<_> = ran.iter().cloned().collect();
    while !left.is_empty() {
        let change = read.change().await;
        if change.event() == TaskEvent::Ended {
            left.remove(&change.task_id);
        }
    }
    // The other stream was not read. Now it is, and tells the newest state of each task.
    let mut late = Screen { stream: unread, cursor: String::new() };
    late.snapshot().await;
    let mut left: HashSet<_> = ran.into_iter().collect();
    while !left.is_empty() {
        let change = late.change().await;
        if change.event() == TaskEvent::Ended {
            assert!(left.remove(&change.task_id), "each ends once");
        }
    }
    drop(late);
    eventually("its slot is free again", async || Screen::try_of(&session, of_bot(&session)).await.ok()).await;
}

#[tokio::test]
async fn screens_show_only_bots_of_the_caller() {
    let Some(server) = tenants::server().await else { return };
    let all = server.session_with("red-all", "b1", "session");
    let (some, blue) =
        (server.session_with("red-a", "a1", "session"), server.session_with("blue-all", "a1", "session"));
    let everything = WatchTasksRequest::default();
    let mut screens = [
        Screen::of(&all, everything.clone()).await,
        Screen::of(&some, everything.clone()).await,
        Screen::of(&blue, everything).await,
    ];
    for screen in &mut screens {
        screen.snapshot().await;
    }
    refused(Screen::try_of(&some, of_bot(&all)).await.map(|_| ()), Code::PermissionDenied);
    let (of_b, of_a, of_blue) = (all.run("exit 1").await, some.run("exit 2").await, blue.run("exit 3").await);
    let all = [TaskEvent::Accepted, TaskEvent::Started, TaskEvent::Ended];
    let [red, red_a, blue] = &mut screens;
    assert_eq!(red.life(&of_b.task_id).await, all);
    assert_eq!(red.life(&of_a.task_id).await, all);
    for (screen, task) in [(red_a, &of_a), (blue, &of_blue)] {
        // The first events are of the caller's own task: no other came before.
        let first = screen.change().await;
        assert_eq!((first.event(), &first.task_id), (TaskEvent::Accepted, &task.task_id));
        assert_eq!(screen.life(&task.task_id).await, all[1..]);
        let more = tokio::time::timeout(Duration::from_millis(300), screen.change()).await;
        assert!(more.is_err(), "nothing of others: {more:?}");
    }
}

#[tokio::test]
async fn screen_of_a_session_ends_with_the_server() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let (ours, theirs) = (server.session("bot", "ours"), server.session("bot", "theirs"));
    let mut screen = Screen::of(&ours, WatchTasksRequest { session_id: "ours".to_owned(), ..of_bot(&ours) }).await;
    screen.snapshot().await;
    theirs.run("true").await;
    let task = ours.run("true").await;
    assert_eq!(screen.change().await.task_id, task.task_id);
    screen.life(&task.task_id).await;
    server.terminate().await;
    let end = soon("the stream ends", screen.stream.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
}
