//! A sandbox inherits no process attributes from the server.

use std::{fs, process::Command};

use errand_proto::v1::*;

use crate::support::{docker::Image, server::Server};

/// Changes the server as `nice`, `ulimit`, `choom` and `chrt` would have started it.
fn burden(server: &Server) {
    let pid = server.pid().to_string();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    for thread in threads.filter_map(|thread| thread.file_name().into_string().ok()) {
        let batch = Command::new("chrt").args(["--batch", "--pid", "0", &thread]).output().unwrap();
        assert!(batch.status.success(), "{batch:?}");
        assert!(Command::new("renice").args(["-n", "5", "-p", &thread]).output().unwrap().status.success());
        assert!(Command::new("ionice").args(["-c", "3", "-p", &thread]).output().unwrap().status.success());
    }
    assert!(Command::new("prlimit").args(["--pid", &pid, "--nofile=500:4000"]).status().unwrap().success());
    fs::write(format!("/proc/{pid}/oom_score_adj"), "321").unwrap();
}

#[tokio::test]
async fn sandboxes_inherit_nothing_of_the_server() {
    if !rustix::process::geteuid().is_root() {
        // An ordinary user cannot restore what was lowered.
        return;
    }
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    burden(&server);
    let session = server.session("bot", "session");
    let task = session.run("nice; cat /proc/self/oom_score_adj; ulimit -n; chrt -p $$ | head -1; ionice; umask").await;
    let said = session.text(&task).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["0", "0"], "{said}");
    assert_ne!(lines[2], "500", "{said}");
    assert!(lines[3].ends_with("SCHED_OTHER") && lines[4].starts_with("none"), "{said}");
    let asked = StartTaskRequest { nice: 7, ..session.request("nice") };
    let task = session.start_as(asked).await;
    let task = session.finished(&task).await;
    assert_eq!(session.text(&task).await, "7\n");
}
