//! Kills at random moments while many short tasks come and go.

use std::time::{Duration, SystemTime};

use errand_proto::v1::Task;

use super::invariants::Tasks;
use crate::support::{docker::Image, server::Server, wait::eventually};

const ROUNDS: u64 = 3;
const TASKS: u64 = 40;
const KILLS: usize = 4;
/// The server's default number of concurrent launches.
const LAUNCHES: usize = 8;

/// SplitMix64: small, and the same sequence on every platform.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

/// A command and the end it must have.
fn command(random: &mut Random) -> (String, String) {
    let pause = format!("sleep 0.{}", random.below(10));
    let code = random.below(256);
    match random.below(8) {
        0 => (format!("{pause}; kill -9 $$"), "signaled 9".to_owned()),
        1 => (format!("{pause}; kill -15 $$"), "signaled 15".to_owned()),
        2 => (format!("seq 1 2000; {pause}; exit {code}"), format!("exited {code}")),
        _ => (format!("{pause}; exit {code}"), format!("exited {code}")),
    }
}

#[tokio::test]
async fn kills_at_random_moments_break_nothing() {
    // `ERRAND_TEST_SEED` repeats a run.
    let given = std::env::var("ERRAND_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed: u64 = given.unwrap_or(now.as_secs());
    println!("ERRAND_TEST_SEED={seed}");
    for round in 0..ROUNDS {
        let image = if round % 2 == 0 { Image::Debian } else { Image::Busybox };
        let Some(server) = Server::on(image, &[]).await else { return };
        torture(server, Random(seed.wrapping_add(round))).await;
    }
}

async fn torture(mut server: Server, mut random: Random) {
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    let wanted: Vec<_> = (0..TASKS).map(|number| (format!("mark-{number}"), command(&mut random))).collect();
    let starting = async {
        let mut accepted: Vec<(Task, String)> = Vec::new();
        for (mark, (command, end)) in wanted {
            let request = Tasks::request(&session, &mark, &command);
            // A client that gets no answer repeats the request with the same request id.
            let started = eventually("the task is accepted", async || {
                Some(session.tasks().start_task(request.clone()).await.ok()?.into_inner())
            })
            .await;
            accepted.push((started.task.unwrap(), end));
        }
        accepted
    };
    let killing = async {
        for _ in 0..KILLS {
            // The moment is random on purpose: no condition to wait for exists.
            tokio::time::sleep(Duration::from_millis(50 + random.below(900))).await;
            server.kill();
            tokio::time::sleep(Duration::from_millis(random.below(400))).await;
            server.launch().await;
        }
    };
    let (accepted, ()) = tokio::join!(starting, killing);
    let mut tasks = Tasks::of(&session);
    for (task, end) in accepted {
        tasks.note(&task, &end);
    }
    tasks.excuse_cut_launches(LAUNCHES * KILLS).await;
    tasks.check().await;
}
