//! A full disk under the server's database: commands can be stopped, stored tasks can be read, and every report is true.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use errand_proto::v1::*;
use tonic::Code;

use crate::support::{
    client::{ended, refused},
    docker::{Image, skip},
    server::Server,
    wait::{eventually, soon},
};

/// A small file system, mounted where a server has its database.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None: such a file system cannot be mounted here, and the test is skipped.
    fn under(server: &Server) -> Option<Self> {
        let data = server.database().parent().unwrap().to_owned();
        // Embedded sandboxes are kept on another file system.
        let sandboxes = server.directory().join("sandboxes");
        for directory in [&data, &sandboxes] {
            fs::create_dir_all(directory).unwrap();
        }
        if !mount(&["-t", "tmpfs", "-o", "size=8m,mode=0700", "small"], &data) {
            skip("a file system can only be mounted by root");
            return None;
        }
        let disk = Self(data.clone());
        fs::create_dir(data.join("sandboxes")).unwrap();
        assert!(mount(&["--bind", &sandboxes.display().to_string()], &data.join("sandboxes")));
        Some(disk)
    }

    fn fill(&self) {
        let mut file = File::create(self.0.join("fill")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("fill")).unwrap();
    }
}

fn mount(arguments: &[&str], on: &Path) -> bool {
    Command::new("mount").args(arguments).arg(on).status().is_ok_and(|status| status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-R", "-l"]).arg(&self.0).status();
        if let Some(directory) = self.0.parent() {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// The server comes first, so that it is dropped before the disk.
async fn server_on_small_disk() -> Option<(Server, SmallDisk)> {
    let mut server = Server::prepare(Image::Busybox).await?;
    let disk = SmallDisk::under(&server)?;
    server.launch().await;
    Some((server, disk))
}

#[tokio::test]
async fn stop_acts_at_once_on_a_full_disk() {
    let Some((mut server, disk)) = server_on_small_disk().await else { return };
    let session = server.session("bot", "session");
    let before = session.run("exit 3").await;
    let task = session.running("sleep 4711").await;
    disk.fill();
    let stopping = tokio::spawn({
        let (session, task) = (session.clone(), task.clone());
        async move { session.stop(&task, None).await }
    });
    eventually("the command is gone", async || (session.processes("sleep 4711").await == 0).then_some(())).await;
    assert_eq!(session.get(&task).await.status(), TaskStatus::Stopping, "no end is told that is not stored");
    assert!(!stopping.is_finished());

    // A task that cannot be stored is refused; stored tasks can still be read.
    let words = refused(session.try_start(session.request("echo")).await, Code::ResourceExhausted);
    assert!(words.contains("disk"), "{words}");
    assert_eq!(session.get(&before).await, before);
    let list = ListTasksRequest { bot_id: session.bot.clone(), ..Default::default() };
    assert_eq!(session.listed(list).await.len(), 2);

    disk.make_room();
    let stopped = soon("the end is stored", stopping).await.unwrap();
    assert_eq!(ended(&stopped), "stopped request 15");
    server.restart().await;
    assert_eq!(session.get(&task).await, stopped);
    assert_eq!(session.told_of(&task).await, ["completed"]);
    assert_eq!(ended(&session.run("exit 4").await), "exited 4");
    drop(server);
    drop(disk);
}

#[tokio::test]
async fn unstored_start_can_be_stopped() {
    let Some((server, disk)) = server_on_small_disk().await else { return };
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    // The disk becomes full before the task's start is stored, or just after: the task can be stopped either way.
    let task = session.start("exec sleep 4712").await;
    disk.fill();
    let stopping = tokio::spawn({
        let (session, task) = (session.clone(), task.clone());
        async move { session.stop(&task, Some(0.0)).await }
    });
    eventually("the command is gone", async || (session.processes("sleep 4712").await == 0).then_some(())).await;
    disk.make_room();
    let stopped = soon("the end is stored", stopping).await.unwrap();
    assert_eq!(stopped.status(), TaskStatus::Stopped, "{stopped:?}");
    drop(server);
    drop(disk);
}
