//! Requests that no client library sends.

use bytes::{Buf as _, BufMut as _};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
};

use crate::support::{docker::Image, server::Server};

/// Encodes and decodes messages as raw bytes.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

#[tokio::test]
async fn undecodable_requests_are_invalid_argument() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let broken_text = [field(1, b"bot"), field(2, b"s"), field(3, b"echo \xFF\xFE")].concat();
    for (method, message, said) in [
        ("StartTask", broken_text.clone(), "StartTaskRequest.command"),
        ("RunTask", field(1, &broken_text), "StartTaskRequest.command"),
        ("GetTask", field(1, b"\xC3"), "GetTaskRequest.task_id"),
        ("StartTask", vec![0xFF; 12], "varint"),
        ("StartTask", vec![0x1A, 0x7F, b'x'], "buffer"),
    ] {
        let mut grpc = Grpc::new(server.channel());
        grpc.ready().await.unwrap();
        let path = PathAndQuery::try_from(format!("/errand.v1.TaskService/{method}")).unwrap();
        let refused = grpc.unary(Request::new(message), path, Raw).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{method}: {refused}");
        assert!(refused.message().contains(said), "{method}: {refused}");
    }
    assert_eq!(server.containers().await, Vec::<String>::new(), "nothing was made");
}
