//! The latency of one task at a time, alternating with the bare exec.

use std::time::Instant;

use anyhow::Result;
use bollard::Docker;

use crate::{floor, plan::Plan, rest, server::Server, table::Table};

/// The number of uncounted runs at the beginning.
const WARM_UP: usize = 5;
/// A command that lives on for a moment, so that its first byte and its end are separate events.
pub const SPEAKING: &str = "echo hi; sleep 0.2";

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    let server = Server::start(docker, &[]).await?;
    let bot = server.bot("bench").await?;
    let (mut client, bare) = (bot.client.clone(), bot.sandbox.bare());
    for _ in 0..WARM_UP {
        client.first_byte("echo hi").await?;
        bare.run("true").await?;
    }

    eprintln!("start → first output byte");
    let (mut ours, mut in_one_call, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.latencies {
        rest::before_sample().await;
        ours.push(client.first_byte(SPEAKING).await?);
        rest::before_sample().await;
        theirs.push(bare.first_byte(SPEAKING).await?);
        rest::before_sample().await;
        in_one_call.push(client.run_first_byte(SPEAKING).await?);
    }
    table.faster("StartTask → first output byte", 0.50, &ours, &theirs, Some(12.0));
    table.faster("StartTask → first output byte", 0.99, &ours, &theirs, None);
    table.faster("RunTask → first output byte", 0.50, &in_one_call, &theirs, None);

    eprintln!("start → completion");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.latencies {
        rest::before_sample().await;
        let begun = Instant::now();
        let notification = client.complete("true").await?;
        ours.push(begun.elapsed());
        client.acknowledge(&notification).await?;

        rest::before_sample().await;
        let begun = Instant::now();
        bare.run("true").await?;
        theirs.push(begun.elapsed());
    }
    let what = "StartTask of `true` → its completion at a subscriber, durable";
    table.faster(what, 0.50, &ours, &theirs, Some(8.0));
    table.faster(what, 0.99, &ours, &theirs, Some(5.0));
    floor::measure(plan.latencies, &server, &bot, table).await
}
