//! The archive of an image, as `docker save` writes it, as an OCI layout, or as a plain file system.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek as _, SeekFrom},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use super::{layer, tree::Tree};

/// The largest description of an image, in bytes.
const DESCRIPTION: u64 = 4 << 20;
/// How many links from name to name are followed.
const LINKS: usize = 8;

/// What an image says of its processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
pub(super) struct Settings {
    /// Environment, as NAME=VALUE.
    #[serde(default, rename = "Env")]
    pub(super) env: Option<Vec<String>>,
    /// The user: `USER[:GROUP]`; empty: none.
    #[serde(default, rename = "User")]
    pub(super) user: Option<String>,
}

/// `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// The configuration of an image.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    config: Option<Settings>,
}

/// `index.json` of an OCI layout, and of what it leads to.
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

/// Where a member lies in the archive.
enum Member {
    File { at: u64, size: u64 },
    SameAs(String),
}

struct Archive {
    file: File,
    members: HashMap<String, Member>,
}

/// Unpacks the image into a directory and returns what it says of its processes. `scratch` is a file that may be made meanwhile.
///
/// # Errors
/// When it is no image, or cannot be unpacked.
pub(super) fn unpack(path: &Path, scratch: &Path, into: &Tree) -> io::Result<Settings> {
    let mut file = File::open(path)?;
    let mut beginning = [0; 4];
    let known = file.read(&mut beginning)?;
    file.rewind()?;
    if layer::is_compressed(&beginning[..known])? {
        // Its parts are looked for in any order.
        let mut whole = File::options().read(true).write(true).create_new(true).open(scratch)?;
        fs::remove_file(scratch)?;
        io::copy(&mut MultiGzDecoder::new(file), &mut whole)?;
        whole.rewind()?;
        file = whole;
    }
    let archive = Archive::index(file)?;
    let (config, layers) = if archive.members.contains_key("manifest.json") {
        let saved: Vec<Saved> = archive.json("manifest.json")?;
        let saved = saved.into_iter().next().ok_or_else(|| io::Error::other("manifest.json names no image"))?;
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
        let told = |error| io::Error::other(format!("layer {name}: {error}"));
        archive.open(&name).and_then(|content| layer::unpack(into, content)).map_err(told)?;
    }
    Ok(config.config.unwrap_or_default())
}

impl Archive {
    fn index(file: File) -> io::Result<Self> {
        let mut members = HashMap::new();
        for entry in tar::Archive::new(&file).entries_with_seek()? {
            let entry = entry?;
            let path = entry.path()?;
            let name = path.strip_prefix(".").unwrap_or(&path).to_string_lossy().into_owned();
            let member = match entry.link_name()? {
                None => Member::File { at: entry.raw_file_position(), size: entry.size() },
                Some(target) => {
                    let beside = path.parent().unwrap_or(Path::new("")).join(target);
                    Member::SameAs(normal(&beside))
                }
            };
            members.insert(name, member);
        }
        Ok(Self { file, members })
    }

    /// Opens a member.
    fn open(&self, name: &str) -> io::Result<impl Read> {
        let mut name = name;
        for _ in 0..LINKS {
            match self.members.get(name) {
                Some(Member::SameAs(other)) => name = other,
                Some(Member::File { at, size }) => {
                    let mut file = self.file.try_clone()?;
                    file.seek(SeekFrom::Start(*at))?;
                    return Ok(file.take(*size));
                }
                None => break,
            }
        }
        Err(io::Error::other(format!("{name} is not in it")))
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> io::Result<T> {
        let mut text = Vec::new();
        self.open(name)?.take(DESCRIPTION).read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(|error| io::Error::other(format!("{name}: {error}")))
    }

    /// The names of configuration and layers, by the index of an OCI layout.
    fn oci(&self) -> io::Result<(String, Vec<String>)> {
        let blob = |descriptor: &Descriptor| format!("blobs/{}", descriptor.digest.replace(':', "/"));
        let mut name = "index.json".to_owned();
        for _ in 0..LINKS {
            if let Ok(manifest) = self.json::<Manifest>(&name) {
                return Ok((blob(&manifest.config), manifest.layers.iter().map(blob).collect()));
            }
            let index: Index = self.json(&name)?;
            let fits = |descriptor: &&Descriptor| {
                descriptor.platform.as_ref().is_none_or(|platform| platform.architecture == architecture())
            };
            let found = index.manifests.iter().find(fits);
            name = blob(found.ok_or_else(|| io::Error::other("it has nothing for this machine's processor"))?);
        }
        Err(io::Error::other("its indexes lead nowhere"))
    }
}

/// This machine's processor, as images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A path without `..`.
fn normal(path: &Path) -> String {
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
