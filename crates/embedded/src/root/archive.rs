//! Reads the archive of an image: the format of `docker save`, an OCI layout, or a plain file system.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek as _, SeekFrom},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use super::{layer, tree::Tree};

/// The largest JSON file of an archive that is read, in bytes.
const JSON_LIMIT: u64 = 4 << 20;
/// How many links between members, or levels of indexes, are followed.
const MAX_LINKS: usize = 8;

/// The settings that an image has for its processes. Stored beside an unpacked image: the names stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
pub(super) struct Settings {
    /// Environment variables, as NAME=VALUE.
    #[serde(default, rename = "Env")]
    pub(super) env: Option<Vec<String>>,
    /// The user, as `USER[:GROUP]`; empty means none.
    #[serde(default, rename = "User")]
    pub(super) user: Option<String>,
}

/// One image in `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    layers: Vec<String>,
}

/// The configuration of an image.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    config: Option<Settings>,
}

/// `index.json` of an OCI layout, or an index that it refers to.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// A manifest of an OCI layout.
#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
}

/// A member of an archive.
enum Member {
    /// A file, with its position in the archive and its size in bytes.
    File { offset: u64, size: u64 },
    /// A link to another member.
    Link(String),
}

/// An archive whose members can be read in any order.
struct Archive {
    file: File,
    members: HashMap<String, Member>,
}

/// Unpacks an image into a tree and returns its settings. `scratch`: the path of a temporary file.
///
/// # Errors
/// When the file is not an image, or cannot be unpacked.
pub(super) fn unpack(path: &Path, scratch: &Path, into: &Tree) -> io::Result<Settings> {
    let mut file = File::open(path)?;
    let mut start = [0; 4];
    let length = file.read(&mut start)?;
    file.rewind()?;
    if layer::is_compressed(&start[..length])? {
        // Members are read in any order, which needs an uncompressed file.
        let mut uncompressed = File::options().read(true).write(true).create_new(true).open(scratch)?;
        fs::remove_file(scratch)?;
        io::copy(&mut MultiGzDecoder::new(file), &mut uncompressed)?;
        uncompressed.rewind()?;
        file = uncompressed;
    }
    let archive = Archive::index(file)?;
    let (config, layers) = if archive.members.contains_key("manifest.json") {
        let saved: Vec<SavedImage> = archive.json("manifest.json")?;
        let saved = saved.into_iter().next().ok_or_else(|| io::Error::other("manifest.json lists no image"))?;
        (saved.config, saved.layers)
    } else if archive.members.contains_key("index.json") {
        archive.oci()?
    } else {
        let mut file = archive.file;
        file.rewind()?;
        layer::unpack(into, file)?;
        return Ok(Settings::default());
    };
    let config: Config = archive.json(&config)?;
    for name in layers {
        let failed = |error| io::Error::other(format!("layer {name}: {error}"));
        archive.open(&name).and_then(|content| layer::unpack(into, content)).map_err(failed)?;
    }
    Ok(config.config.unwrap_or_default())
}

impl Archive {
    /// Reads the headers of all members.
    fn index(file: File) -> io::Result<Self> {
        let mut members = HashMap::new();
        for entry in tar::Archive::new(&file).entries_with_seek()? {
            let entry = entry?;
            let path = entry.path()?;
            let name = path.strip_prefix(".").unwrap_or(&path).to_string_lossy().into_owned();
            let member = match entry.link_name()? {
                None => Member::File { offset: entry.raw_file_position(), size: entry.size() },
                Some(target) => {
                    let target = path.parent().unwrap_or(Path::new("")).join(target);
                    Member::Link(normalize(&target))
                }
            };
            members.insert(name, member);
        }
        Ok(Self { file, members })
    }

    /// Opens a member for reading, after following links.
    fn open(&self, name: &str) -> io::Result<impl Read> {
        let mut name = name;
        for _ in 0..MAX_LINKS {
            match self.members.get(name) {
                Some(Member::Link(target)) => name = target,
                Some(Member::File { offset, size }) => {
                    let mut file = self.file.try_clone()?;
                    file.seek(SeekFrom::Start(*offset))?;
                    return Ok(file.take(*size));
                }
                None => break,
            }
        }
        Err(io::Error::other(format!("the archive does not contain {name}")))
    }

    /// Reads and decodes a JSON file.
    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> io::Result<T> {
        let mut text = Vec::new();
        self.open(name)?.take(JSON_LIMIT).read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(|error| io::Error::other(format!("{name}: {error}")))
    }

    /// The names of the configuration and the layers of an OCI layout.
    fn oci(&self) -> io::Result<(String, Vec<String>)> {
        let blob = |descriptor: &Descriptor| format!("blobs/{}", descriptor.digest.replace(':', "/"));
        let mut name = "index.json".to_owned();
        for _ in 0..MAX_LINKS {
            if let Ok(manifest) = self.json::<Manifest>(&name) {
                return Ok((blob(&manifest.config), manifest.layers.iter().map(blob).collect()));
            }
            let index: Index = self.json(&name)?;
            let fits = |descriptor: &&Descriptor| {
                descriptor.platform.as_ref().is_none_or(|platform| platform.architecture == architecture())
            };
            let found = index.manifests.iter().find(fits);
            name = blob(
                found.ok_or_else(|| io::Error::other(format!("the image has no variant for {}", architecture())))?,
            );
        }
        Err(io::Error::other(format!("the indexes are nested more than {MAX_LINKS} levels deep")))
    }
}

/// The host's processor architecture, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Resolves `.` and `..` in a path of the archive.
fn normalize(path: &Path) -> String {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => parts.push(name.to_string_lossy()),
            std::path::Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.join("/")
}
