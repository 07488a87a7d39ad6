//! Lies about files.

use bytes::Bytes;
use errand_proto::bridge::{
    FileChange, FileChangeKind, FileEntry, FileKind, ListDirectoryRequest, ListDirectoryResponse, MakeDirectoryRequest,
    MakeDirectoryResponse, ReadFileRequest, ReadFileResponse, ReadTreeRequest, ReadTreeResponse, RemoveFileRequest,
    RemoveFileResponse, RenameFileRequest, RenameFileResponse, StatFileRequest, StatFileResponse, WatchFilesRequest,
    WatchFilesResponse, WriteFileRequest, WriteFileResponse, WriteTreeRequest, WriteTreeResponse,
    file_service_server::FileService, read_file_response::Part, read_tree_response,
};
use futures_util::{
    StreamExt as _,
    stream::{iter, repeat, repeat_with},
};
use tonic::{Request, Response, Status, Streaming};

use crate::{Answers, calls::Liar};

impl Liar {
    fn entry(&self, name: &str) -> FileEntry {
        let honest = FileEntry {
            name: Bytes::copy_from_slice(name.as_bytes()),
            kind: FileKind::File.into(),
            size: 5,
            mode: 0o644,
            ..FileEntry::default()
        };
        match self.lie.as_str() {
            "huge_directory_names" => FileEntry { name: vec![b'n'; 60_000].into(), ..honest },
            "huge_links" => {
                FileEntry { kind: FileKind::Symlink.into(), link_target: vec![b'l'; 60_000].into(), ..honest }
            }
            "impossible_files" => FileEntry {
                name: Bytes::from_static(b"../../\x1b[2J\xff/etc"),
                kind: 99,
                size: u64::MAX,
                mode: u32::MAX,
                uid: u32::MAX,
                gid: u32::MAX,
                modified_us: i64::MIN,
                link_target: Bytes::from_static(b"\xff\x00"),
            },
            _ => honest,
        }
    }
}

#[tonic::async_trait]
impl FileService for Liar {
    type ReadFileStream = Answers<ReadFileResponse>;
    type ListDirectoryStream = Answers<ListDirectoryResponse>;
    type ReadTreeStream = Answers<ReadTreeResponse>;
    type WatchFilesStream = Answers<WatchFilesResponse>;

    async fn read_file(&self, _request: Request<ReadFileRequest>) -> Result<Response<Self::ReadFileStream>, Status> {
        let part = |part| Ok(ReadFileResponse { part: Some(part) });
        let head = iter([part(Part::Entry(self.entry("file")))]);
        let large = Bytes::from(vec![b'x'; 256 * 1024]);
        let content: Answers<ReadFileResponse> = match self.lie.as_str() {
            "endless_file" => Box::pin(repeat_with(move || part(Part::Data(large.clone())))),
            "huge_file_pieces" => Box::pin(iter([part(Part::Data(vec![b'x'; 64 << 20].into()))])),
            "empty_file_pieces" => Box::pin(repeat_with(move || part(Part::Data(Bytes::new())))),
            _ => Box::pin(iter([part(Part::Data(Bytes::from_static(b"word\n")))])),
        };
        self.answer(Box::pin(head.chain(content)) as Self::ReadFileStream).await
    }

    async fn write_file(
        &self,
        request: Request<Streaming<WriteFileRequest>>,
    ) -> Result<Response<WriteFileResponse>, Status> {
        let mut said = request.into_inner();
        if self.is("deaf") {
            // Keeps the stream open without reading it.
            let _said = said;
            return std::future::pending().await;
        }
        while said.message().await?.is_some() {}
        self.answer(WriteFileResponse { entry: Some(self.entry("file")) }).await
    }

    async fn list_directory(
        &self,
        _request: Request<ListDirectoryRequest>,
    ) -> Result<Response<Self::ListDirectoryStream>, Status> {
        let batch = |names: usize| {
            let entries = (0..names).map(|number| self.entry(&format!("{number:0200}"))).collect();
            Ok(ListDirectoryResponse { entries })
        };
        let said: Self::ListDirectoryStream = match self.lie.as_str() {
            "endless_directory" => Box::pin(repeat(batch(256))),
            "empty_batches" => Box::pin(repeat(batch(0))),
            "large_batches" => Box::pin(repeat(batch(100_000))),
            _ => Box::pin(iter([batch(1)])),
        };
        self.answer(said).await
    }

    async fn stat_file(&self, _request: Request<StatFileRequest>) -> Result<Response<StatFileResponse>, Status> {
        self.answer(StatFileResponse { entry: Some(self.entry("file")) }).await
    }

    async fn remove_file(&self, _request: Request<RemoveFileRequest>) -> Result<Response<RemoveFileResponse>, Status> {
        self.answer(RemoveFileResponse {}).await
    }

    async fn make_directory(
        &self,
        _request: Request<MakeDirectoryRequest>,
    ) -> Result<Response<MakeDirectoryResponse>, Status> {
        self.answer(MakeDirectoryResponse { entry: Some(self.entry("directory")) }).await
    }

    async fn rename_file(&self, _request: Request<RenameFileRequest>) -> Result<Response<RenameFileResponse>, Status> {
        self.answer(RenameFileResponse { entry: Some(self.entry("file")) }).await
    }

    async fn read_tree(&self, _request: Request<ReadTreeRequest>) -> Result<Response<Self::ReadTreeStream>, Status> {
        use read_tree_response::Part;
        let part = |part| Ok(ReadTreeResponse { part: Some(part) });
        let large = Bytes::from(vec![b'x'; 256 * 1024]);
        let content: Self::ReadTreeStream = match self.lie.as_str() {
            "endless_file" => Box::pin(repeat_with(move || part(Part::Data(large.clone())))),
            "huge_file_pieces" => Box::pin(iter([part(Part::Data(vec![b'x'; 64 << 20].into()))])),
            "empty_file_pieces" => Box::pin(repeat_with(move || part(Part::Data(Bytes::new())))),
            _ => Box::pin(iter([part(Part::Data(Bytes::from_static(&[0; 1024])))])),
        };
        let head = iter([part(Part::Entry(self.entry("directory")))]);
        self.answer(Box::pin(head.chain(content)) as Self::ReadTreeStream).await
    }

    async fn write_tree(
        &self,
        request: Request<Streaming<WriteTreeRequest>>,
    ) -> Result<Response<WriteTreeResponse>, Status> {
        let mut said = request.into_inner();
        if self.is("deaf") {
            let _said = said;
            return std::future::pending().await;
        }
        while said.message().await?.is_some() {}
        let (unpacked, left_out) = (u64::MAX, u64::MAX);
        self.answer(WriteTreeResponse { entry: Some(self.entry("directory")), unpacked, left_out }).await
    }

    async fn watch_files(
        &self,
        _request: Request<WatchFilesRequest>,
    ) -> Result<Response<Self::WatchFilesStream>, Status> {
        let change = |path: Vec<u8>| FileChange {
            kind: FileChangeKind::Modified.into(),
            path: path.into(),
            ..FileChange::default()
        };
        let message = |changes| Ok(WatchFilesResponse { changes });
        let honest = move || message(vec![change(b"file".to_vec())]);
        let said: Self::WatchFilesStream = match self.lie.as_str() {
            "endless_changes" => Box::pin(repeat_with(move || message(vec![change(vec![b'p'; 400]); 250]))),
            "empty_changes" => Box::pin(repeat_with(move || message(Vec::new()))),
            "large_changes" => Box::pin(repeat_with(move || message(vec![change(vec![b'p'; 10_000])]))),
            "impossible_files" => Box::pin(iter([message(vec![FileChange { kind: 99, ..change(b"\xff".to_vec()) }])])),
            _ => Box::pin(iter([honest()])),
        };
        self.answer(Box::pin(iter([message(Vec::new())]).chain(said)) as Self::WatchFilesStream).await
    }
}
