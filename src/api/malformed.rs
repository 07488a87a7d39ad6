//! Malformed requests, such as text that is not UTF-8.
//!
//! The library that decodes requests refuses these before any service sees them, with a status that blames the server. This module replaces
//! it with a status that blames the client.

use tonic::{Code, Status, body::Body, codegen::http::Response};

/// How the decoder's message begins.
const OPENING: &str = "failed to decode Protobuf message: ";

/// Turns the refusal of an undecodable request into INVALID_ARGUMENT. Leaves every other response unchanged.
pub(super) fn answer(response: Response<Body>) -> Response<Body> {
    let undecodable = Status::from_header_map(response.headers())
        .filter(|status| status.code() == Code::Internal)
        .and_then(|status| status.message().strip_prefix(OPENING).map(str::to_owned));
    match undecodable {
        Some(detail) => {
            tracing::debug!(%detail, "malformed request");
            Status::invalid_argument(format!("malformed request: {detail}")).into_http()
        }
        None => response,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn code_of(status: Status) -> Code {
        Status::from_header_map(answer(status.into_http()).headers()).unwrap().code()
    }

    #[test]
    fn only_undecodable_requests_become_invalid_argument() {
        assert_eq!(code_of(Status::internal(format!("{OPENING}Foo.bar: invalid varint"))), Code::InvalidArgument);
        assert_eq!(code_of(Status::internal("the server's database failed")), Code::Internal);
        assert_eq!(code_of(Status::not_found(OPENING)), Code::NotFound);
    }
}
