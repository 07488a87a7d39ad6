//! The connection to the server: one channel, the token on every call, a client for each service.

use std::time::Duration;

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};
use tonic_health::pb::health_client::HealthClient;

use super::{args::Globals, error::CliError};
use errand_proto::v1::{
    GetTaskRequest, notification_service_client::NotificationServiceClient,
    sandbox_service_client::SandboxServiceClient, task_service_client::TaskServiceClient,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls may wait for minutes without receiving a byte: pings distinguish a silent server from one that is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The largest HTTP/2 frame, in bytes. Output and files come in pieces larger than the default of 16 KiB.
const FRAME: u32 = 64 * 1024;
/// A page of tasks may hold commands of 1 MiB each.
const LARGEST_ANSWER: usize = 256 << 20;

type Service = InterceptedService<Channel, Bearer>;

/// The client of the task service.
pub(super) type Tasks = TaskServiceClient<Service>;

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Connection {
    service: Service,
}

/// Adds the token to every call.
#[derive(Clone)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Connection {
    /// Connects at once, so that an unreachable server is reported before any call.
    pub(super) async fn open(globals: &Globals) -> Result<Self, CliError> {
        let url = &globals.server;
        let bearer = bearer(globals.token.as_deref())?;
        let endpoint = endpoint(url)?
            .connect_timeout(CONNECT_TIMEOUT)
            .max_frame_size(FRAME)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let channel = endpoint.connect().await.map_err(|source| CliError::Unreachable { url: url.clone(), source })?;
        Ok(Self { service: InterceptedService::new(channel, bearer) })
    }

    /// A client of the task service.
    pub(super) fn tasks(&self) -> Tasks {
        TaskServiceClient::new(self.service.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }

    /// Says that answers with these leases have arrived, by a call about one of their tasks. If that fails, the session is notified once more
    /// than necessary, which the protocol allows.
    pub(super) async fn received(&self, task_id: &str, leases: &[String]) {
        let Ok(receipt) = leases.join(",").parse() else { return };
        if !leases.is_empty() {
            let mut request = Request::new(GetTaskRequest { task_id: task_id.to_owned(), ..GetTaskRequest::default() });
            request.metadata_mut().insert("errand-receipt", receipt);
            let _ = self.tasks().get_task(request).await;
        }
    }

    /// A client of the notification service.
    pub(super) fn notifications(&self) -> NotificationServiceClient<Service> {
        NotificationServiceClient::new(self.service.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }

    /// A client of the sandbox service.
    pub(super) fn sandboxes(&self) -> SandboxServiceClient<Service> {
        SandboxServiceClient::new(self.service.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }

    /// A client of the server's health service.
    pub(super) fn health(&self) -> HealthClient<Service> {
        HealthClient::new(self.service.clone())
    }
}

fn endpoint(url: &str) -> Result<Endpoint, CliError> {
    let unfit =
        || CliError::Usage(format!("--server {url:?}: expected http://HOST:PORT, such as http://127.0.0.1:7543"));
    let uri: Uri = url.parse().map_err(|_| unfit())?;
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
        return Err(unfit());
    }
    Ok(Endpoint::from(uri))
}

fn bearer(token: Option<&str>) -> Result<Bearer, CliError> {
    // Scripts set ERRAND_TOKEN to an empty value to say "none".
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(Bearer(None)) };
    // The message does not repeat the token: terminals are watched and logs are kept.
    let unfit = |_| CliError::Usage("--token: expected printable ASCII characters".to_owned());
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(unfit)?;
    value.set_sensitive(true);
    Ok(Bearer(Some(value)))
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Bearer(…)" } else { "Bearer(none)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_must_be_plain_http() {
        assert!(endpoint("http://127.0.0.1:7543").is_ok());
        for wrong in ["127.0.0.1:7543", "localhost", "https://host", "http://", "", "/path"] {
            assert_eq!(endpoint(wrong).err().map(|error| error.exit_code()), Some(64), "{wrong}");
        }
    }

    #[test]
    fn invalid_token_is_a_usage_error_without_echo() {
        let error = bearer(Some("sec\nret")).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("--token: expected printable ASCII characters"));
        assert!(bearer(Some("")).is_ok_and(|bearer| bearer.0.is_none()));
        assert!(!format!("{:?}", bearer(Some("secret"))).contains("secret"));
    }
}
