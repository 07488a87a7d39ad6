//! The guest's processes are killed while a server supervises. Only a command whose own shim is killed is affected.

use errand_proto::v1::{StartTaskRequest, StreamOutputRequest, TaskStatus, stream_output_response::Event};

use super::invariants::Tasks;
use crate::{
    on_both_images,
    support::{
        client::{Session, bytes, ended},
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(killed_bridge_loses_no_task_or_launch, killed_shim_is_a_loss_with_reason,);

/// Kills every process of this name, as a pattern of grep.
async fn kill(session: &Session, name: &str) {
    session
        .exec(&format!("kill -9 $(grep -lx '{name}' /proc/[0-9]*/comm 2>/dev/null | cut -d/ -f3) 2>/dev/null"))
        .await;
}

async fn killed_bridge_loses_no_task_or_launch(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    let mut tasks = Tasks::of(&session);
    let printer = "i=0; until [ -e /workspace/go ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 4";
    let printing = tasks.start(printer, "exited 4").await;
    session.until_output(&printing, "3\n").await;
    for round in 0..5 {
        for _ in 0..6 {
            tasks.start(&format!("exit {round}"), &format!("exited {round}")).await;
        }
        // In the middle of those launches: no condition to wait for exists.
        kill(&session, if round % 2 == 0 { "errand-bridge" } else { "errand-\\(bridge\\|spawner\\)" }).await;
    }
    session.exec("touch /workspace/go").await;
    // A shim that was just forked may exit with its spawner's socket: then the launch reports that.
    tasks.excuse_cut_launches(8 * 5).await;
    tasks.check().await;
    let output = session.text(&session.get(&printing).await).await;
    let numbers: Vec<usize> = output.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}

async fn killed_shim_is_a_loss_with_reason(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let mut tasks = Tasks::of(&session);
    let task = tasks.start("env -i setsid sleep 7400 & sleep 7400", "lost SUPERVISOR_KILLED").await;
    let bystander = tasks.start("until [ -e /workspace/go ]; do sleep 0.1; done; exit 5", "exited 5").await;
    session.until(&bystander, TaskStatus::Running).await;
    // If the shell itself stays and waits, it matches too.
    eventually("both sleep", async || (session.processes("sleep 7400").await >= 2).then_some(())).await;
    session.exec(&format!("kill -9 $(head -n 1 /tmp/errand/{}/processes | cut -d' ' -f1)", task.task_id)).await;
    assert_eq!(ended(&session.finished(&task).await), "lost SUPERVISOR_KILLED");
    assert_eq!(session.processes("sleep 7400").await, 0, "the tree is gone");
    session.exec("touch /workspace/go").await;
    tasks.check().await;
}

#[tokio::test]
async fn broken_exec_stream_loses_no_output_byte() {
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    let last = 12_500_000;
    let request = StartTaskRequest { output_limit_bytes: 1 << 30, ..session.request(&format!("seq 1 {last}; exit 6")) };
    let task = session.start_as(request).await;
    let request = StreamOutputRequest { task_id: task.task_id.clone(), ..Default::default() };
    let mut stream = session.tasks().stream_output(request).await.unwrap().into_inner();
    let (mut position, mut number, mut line, mut cuts, mut finished) = (0, 0u32, Vec::new(), 0, None);
    while let Some(event) = soon("more of a stream comes", stream.message()).await.unwrap() {
        match event.event.unwrap() {
            Event::Output(part) => {
                assert_eq!(part.offset, position);
                let bytes = bytes(&part);
                position += i64::try_from(bytes.len()).unwrap();
                for byte in bytes {
                    if byte == b'\n' {
                        number += 1;
                        assert_eq!(line, number.to_string().into_bytes());
                        line.clear();
                    } else {
                        line.push(byte);
                    }
                }
            }
            Event::Finished(task) => finished = Some(task),
        }
        if position > (cuts + 1) * 25_000_000 {
            cuts += 1;
            // Only the process of the exec: its name is the file's, and the bridge process has a name of its own.
            kill(&session, "errand-bridge-.*").await;
        }
    }
    assert!(number == last && cuts >= 3, "{number} lines, {cuts} cuts");
    assert_eq!(ended(&finished.unwrap()), "exited 6");
}
