//! Puts the guest into containers, on a volume that is mounted read-only. Commands cannot replace the guest, which is the container's first
//! process, has capabilities that commands do not have, and sets up the network fence.
//!
//! Each version of the guest has one volume. The volume is filled through a container that is never started. This needs only the engine's
//! API, so the server itself may run in a container.

use bollard::{
    models::{ContainerCreateBody, ContainerInspectResponse, HostConfig, Mount, MountType, MountVolumeOptions},
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder,
        UploadToContainerOptionsBuilder,
    },
};

use super::{DockerRuntime, archive, error};
use crate::{GuestProgram, RuntimeError};

/// The mount point. It is directly below the root: a root command could replace the parent of a deeper one.
const DIRECTORY: &str = "/.errand";
/// Prefix of the volumes' names. The rest is the digest of the guest; the file on the volume has the same name.
const VOLUME: &str = "errand-bridge-";
/// The bit of a file's mode that marks a link, in the engine's encoding.
const LINK: u32 = 1 << 27;

/// The path of this version's guest.
pub(super) fn path(guest: &GuestProgram) -> String {
    path_on(guest.name())
}

/// The path of the guest on a volume.
pub(super) fn path_on(volume: &str) -> String {
    format!("{DIRECTORY}/{volume}")
}

/// The mount of this version's guest.
pub(super) fn mount(guest: &GuestProgram, read_only: bool) -> Mount {
    Mount { read_only: Some(read_only), ..mount_of(guest.name()) }
}

/// The mount of any version's guest.
pub(super) fn mount_of(volume: &str) -> Mount {
    Mount {
        target: Some(DIRECTORY.to_owned()),
        source: Some(volume.to_owned()),
        typ: Some(MountType::VOLUME),
        read_only: Some(true),
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
        ..Mount::default()
    }
}

/// The volume with the guest in a container that any version of Errand made; none in any other container.
pub(super) fn of(inspected: &ContainerInspectResponse) -> Option<String> {
    let mounts = inspected.mounts.as_deref().unwrap_or_default();
    mounts.iter().find_map(|mount| {
        let name = mount.name.as_deref().filter(|name| name.starts_with(VOLUME))?;
        let fits = mount.typ.as_deref() == Some("volume") && mount.rw == Some(false);
        (fits && mount.destination.as_deref() == Some(DIRECTORY)).then(|| name.to_owned())
    })
}

impl DockerRuntime {
    /// Makes sure that the volume is there and filled. Once for a server, unless it was taken away meanwhile.
    pub(super) async fn prepare_guest(&self, image: &str) -> Result<(), RuntimeError> {
        let mut prepared = self.prepared.lock().await;
        if !*prepared {
            self.fill_volume(image).await?;
            *prepared = true;
        }
        Ok(())
    }

    async fn fill_volume(&self, image: &str) -> Result<(), RuntimeError> {
        let name = format!("errand-volume-{}", uuid::Uuid::new_v4().simple());
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(vec!["none".to_owned()]),
            host_config: Some(HostConfig {
                mounts: Some(vec![mount(&self.guest, false)]),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let made = self.docker()?.create_container(Some(options), body).await;
        made.map_err(|failure| error::about_creation(failure, image))?;
        let filled = self.fill(&name).await;
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        if let Err(failure) = self.docker()?.remove_container(&name, Some(options)).await {
            tracing::warn!(container = %name, error = %failure, "a container that was never started is left");
        }
        filled
    }

    async fn fill(&self, container: &str) -> Result<(), RuntimeError> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(&path(&self.guest)).build();
        let there = self.docker()?.get_container_archive_info(container, Some(options)).await;
        if there.is_ok_and(|there| usize::try_from(there.size).is_ok_and(|size| size == self.guest.bytes().len())) {
            return Ok(());
        }
        let refused =
            |detail: String| RuntimeError::Refused { detail: format!("the volume {}: {detail}", self.guest.name()) };
        let packed = archive::pack(&path(&self.guest), self.guest.bytes(), 0o755, None)
            .ok_or_else(|| refused("no archive".to_owned()))?;
        let options = UploadToContainerOptionsBuilder::default().path(&packed.directory).build();
        let uploaded = self.docker()?.upload_to_container(container, Some(options), bollard::body_full(packed.content));
        uploaded.await.map_err(|failure| match error::about_container(failure, container) {
            RuntimeError::Refused { detail } => refused(detail),
            other => other,
        })
    }

    /// Refuses a container whose image has a link where the program is to be: it could lead to where a command can write.
    pub(super) async fn refuse_link(&self, container: &str) -> Result<(), RuntimeError> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(DIRECTORY).build();
        match self.docker()?.get_container_archive_info(container, Some(options)).await {
            Ok(found) if found.file_mode & LINK != 0 || !found.link_target.is_empty() => {
                Err(RuntimeError::Refused { detail: format!("the image has a link at {DIRECTORY}; use another image") })
            }
            Ok(_) => Ok(()),
            // Then the engine makes the directory.
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(failure) => Err(error::about_container(failure, container)),
        }
    }
}
