//! `NotificationService`: reads requests, asks the notifier and the store, answers.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::{
    Parts,
    auth::{Caller, TenantUse},
    convert, page, status, validate,
};
use errand_proto::v1::{
    self, AckNotificationsRequest, AckNotificationsResponse, DrainNotificationsRequest, DrainNotificationsResponse,
    ListNotificationsRequest, ListNotificationsResponse, NackNotificationsRequest, NackNotificationsResponse,
    SubscribeRequest, SubscribeResponse, notification_service_server::NotificationService,
};
use errand_store::{LeaseRequest, Scope, Selection};
use errand_task::LeaseId;

/// The service.
#[derive(Clone)]
pub(super) struct Notifications {
    parts: Arc<Parts>,
}

impl Notifications {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts }
    }

    /// Leases pending notifications, as many as one answer holds.
    async fn drain(
        &self,
        scope: &Scope,
        limit: u32,
        lease_for: Duration,
    ) -> Result<DrainNotificationsResponse, Status> {
        let lease = LeaseId::new();
        let request = LeaseRequest { lease, after: 0, limit, duration: lease_for };
        let leased = self.parts.store.lease(scope, request).await.map_err(status::store)?;
        let mut notifications: Vec<v1::Notification> =
            leased.notifications.into_iter().map(convert::notification).collect();
        let surplus = notifications.split_off(page::fitting(&notifications));
        if !surplus.is_empty() {
            let sequences = surplus.iter().map(|notification| notification.sequence).collect();
            self.parts.store.release(scope, Selection::Sequences(sequences)).await.map_err(status::store)?;
        }
        if notifications.is_empty() {
            return Ok(DrainNotificationsResponse::default());
        }
        Ok(DrainNotificationsResponse {
            notifications,
            lease_id: lease.to_string(),
            lease_expires_at: Some(convert::timestamp(leased.ends_at)),
        })
    }
}

#[tonic::async_trait]
impl NotificationService for Notifications {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = Caller::of(&request)?;
        let (scope, after, delivery) = validate::subscribe(request.get_ref(), &caller, self.parts.lease_duration)?;
        caller.may_use(&scope.bot)?;
        let held = match request.extensions().get::<Arc<TenantUse>>() {
            Some(usage) => Some(usage.subscribe(&scope.bot, self.parts.subscriptions_per_bot)?),
            None => None,
        };
        let notifications = self.parts.notifier.subscribe(scope, after, delivery).map(|item| match item {
            Ok(notification) => Ok(SubscribeResponse { notification: Some(convert::notification(notification)) }),
            Err(error) => Err(status::store(error)),
        });
        // A subscription ends without an error only when the server shuts down.
        let end = stream::once(async { Err(status::shutting_down()) });
        let mut over = false;
        let until_first_error = notifications.chain(end).take_while(move |item| {
            // The closure owns it: the subscription counts until its stream ends.
            let _ = &held;
            let taken = !over;
            over = item.is_err();
            std::future::ready(taken)
        });
        Ok(Response::new(Box::pin(until_first_error)))
    }

    async fn drain_notifications(
        &self,
        request: Request<DrainNotificationsRequest>,
    ) -> Result<Response<DrainNotificationsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (scope, limit, lease_for) = validate::drain(request.get_ref(), &caller, self.parts.lease_duration)?;
        caller.may_use(&scope.bot)?;
        Ok(Response::new(self.drain(&scope, limit, lease_for).await?))
    }

    async fn ack_notifications(
        &self,
        request: Request<AckNotificationsRequest>,
    ) -> Result<Response<AckNotificationsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let AckNotificationsRequest { bot_id, session_id, sequences, lease_id } = request.into_inner();
        let (scope, which) = validate::chosen(&bot_id, &session_id, sequences, &lease_id, &caller)?;
        caller.may_use(&scope.bot)?;
        let acknowledged = self.parts.store.acknowledge(&scope, which).await.map_err(status::store)?;
        Ok(Response::new(AckNotificationsResponse { acknowledged: i32::try_from(acknowledged).unwrap_or(i32::MAX) }))
    }

    async fn nack_notifications(
        &self,
        request: Request<NackNotificationsRequest>,
    ) -> Result<Response<NackNotificationsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let NackNotificationsRequest { bot_id, session_id, sequences, lease_id } = request.into_inner();
        let (scope, which) = validate::chosen(&bot_id, &session_id, sequences, &lease_id, &caller)?;
        caller.may_use(&scope.bot)?;
        let released = self.parts.store.release(&scope, which).await.map_err(status::store)?;
        Ok(Response::new(NackNotificationsResponse { released: i32::try_from(released).unwrap_or(i32::MAX) }))
    }

    async fn list_notifications(
        &self,
        request: Request<ListNotificationsRequest>,
    ) -> Result<Response<ListNotificationsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let mut query = validate::list_notifications(request.get_ref(), &caller)?;
        caller.may_use(&query.scope.bot)?;
        let limit = query.limit;
        // One more notification than shown, to know whether there is another page.
        query.limit += 1;
        let found = self.parts.store.notification_page(query).await.map_err(status::store)?;
        let mut notifications: Vec<v1::Notification> =
            found.notifications.into_iter().map(convert::notification).collect();
        let more = page::cut(&mut notifications, limit);
        let last = notifications.last().filter(|_| more);
        // The next page begins after the last entry shown. If the store searched far and found little, it begins where the search stopped.
        let next_page_token = last
            .map(|notification| page::token(notification.sequence))
            .or(found.next.map(page::token))
            .unwrap_or_default();
        Ok(Response::new(ListNotificationsResponse { notifications, next_page_token }))
    }
}
