//! Many sessions that wait for their notifications, each on a connection of its own, as agent loops do.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use bollard::Docker;
use errand_proto::v1::{
    Notification, SubscribeRequest, SubscribeResponse, notification_service_client::NotificationServiceClient,
};
use tokio::task::JoinSet;
use tonic::Streaming;

use crate::{
    at_once::at_once,
    client::SESSION,
    plan::Plan,
    proc,
    server::{Bot, Server},
    table::{Table, milliseconds, percentile},
};

const LATENCY_LIMIT: f64 = 50.0;
const MEMORY_LIMIT: f64 = 40.0;
/// Concurrent tasks: few, so that no queue of launches is measured.
const AT_A_TIME: usize = 4;

pub type Subscription = Streaming<SubscribeResponse>;

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    let count = plan.subscribers;
    eprintln!("{count} subscribers");
    let server = Server::start(docker, &[]).await?;
    let mut bot = server.bot("bench").await?;
    for _ in 0..5 {
        let notification = bot.client.complete("true").await?;
        bot.client.acknowledge(&notification).await?;
    }
    let before = proc::resident(server.pid())?;
    let sessions: Vec<_> = (0..count).map(|number| format!("session-{number}")).collect();
    let subscribed = subscribe(&server, &bot, sessions.iter()).await?;
    let each = proc::resident(server.pid())?.saturating_sub(before) as f64 / 1000.0 / count as f64;
    table.below(&format!("{count} subscribers: memory of the server, each"), each, "kB", MEMORY_LIMIT);

    let receipts = receive(subscribed);
    let client = bot.client.clone();
    let work = move |number: usize| {
        let (mut client, session) = (client.clone(), sessions[number].clone());
        async move {
            let task = client.start_in(&session, "true").await?;
            client.completion(&task).await.map(drop)
        }
    };
    let cpu = proc::cpu_time(server.pid())?;
    at_once(AT_A_TIME, count, work).await?;
    let taken = received(receipts).await?;
    let cpu = proc::cpu_time(server.pid())?.saturating_sub(cpu).div_f64(count as f64);
    let what = format!("CPU time of a task in the server with {count} subscribers, all but one of them others'");
    table.note(&what, milliseconds(cpu));
    let p99 = percentile(&taken, 0.99).as_secs_f64() * 1000.0;
    let what = format!("{count} subscribers, one notification each, from the command's end to receipt, p99");
    table.below(&what, p99, "ms", LATENCY_LIMIT);

    let same = std::iter::repeat_n(SESSION.to_owned(), count).collect::<Vec<_>>();
    let receipts = receive(subscribe(&server, &bot, same.iter()).await?);
    bot.client.complete("true").await?;
    let taken = received(receipts).await?;
    let shown = [0.5, 0.99].map(|share| milliseconds(percentile(&taken, share))).join(" / ");
    table.note(&format!("one notification to {count} subscribers at once, p50 / p99"), shown);
    Ok(())
}

pub async fn subscribe(
    server: &Server,
    bot: &Bot,
    sessions: impl Iterator<Item = &String>,
) -> Result<Vec<Subscription>> {
    let mut subscribed = Vec::new();
    for session in sessions {
        let (bot_id, session_id) = (bot.client.bot().to_owned(), session.clone());
        let request = SubscribeRequest { bot_id, session_id, ..SubscribeRequest::default() };
        let mut client = NotificationServiceClient::new(server.connect().await?);
        subscribed.push(client.subscribe(request).await?.into_inner());
    }
    Ok(subscribed)
}

/// Waits for one notification on each subscription.
pub fn receive(subscribed: Vec<Subscription>) -> JoinSet<Result<Duration>> {
    let mut receipts = JoinSet::new();
    for mut subscription in subscribed {
        receipts.spawn(async move {
            let message = subscription.message().await?.context("the subscription ended")?;
            age(&message.notification.unwrap_or_default())
        });
    }
    receipts
}

pub async fn received(receipts: JoinSet<Result<Duration>>) -> Result<Vec<Duration>> {
    receipts.join_all().await.into_iter().collect()
}

/// The notification's age. It starts before the commit, so the commit counts too.
fn age(notification: &Notification) -> Result<Duration> {
    let created = notification.created_at.context("when it was made")?;
    let created =
        SystemTime::UNIX_EPOCH + Duration::new(u64::try_from(created.seconds)?, u32::try_from(created.nanos)?);
    Ok(created.elapsed().unwrap_or_default())
}
