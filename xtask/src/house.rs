//! Where this repository is, and what cargo says is in it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir)
}

/// Whether nothing may be skipped: continuous integration says `CI=true`.
pub(crate) fn ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// What `cargo metadata --no-deps` says of one workspace.
pub(crate) struct Workspace {
    pub(crate) target_dir: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One package, with the dependencies its manifest declares.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) bins: Vec<String>,
}

/// One declared dependency; `dev` when only tests and examples see it.
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) dev: bool,
}

impl Workspace {
    /// The workspace that the manifest in `dir` belongs to.
    pub(crate) fn read(dir: &Path) -> Result<Workspace> {
        let manifest = dir.join("Cargo.toml");
        let mut command = process::command(&["cargo", "metadata", "--no-deps", "--format-version", "1"]);
        let text = process::output(command.arg("--manifest-path").arg(manifest))?;
        let json: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
        let packages = list(&json, "packages").map(Package::from_json).collect::<Result<_>>()?;
        Ok(Workspace { target_dir: PathBuf::from(text_of(&json, "target_directory")?), packages })
    }
}

impl Package {
    fn from_json(json: &Value) -> Result<Package> {
        let manifest = PathBuf::from(text_of(json, "manifest_path")?);
        let dependencies = list(json, "dependencies").map(Dependency::from_json).collect::<Result<_>>()?;
        let is_bin = |target: &&Value| list(target, "kind").any(|kind| kind == "bin");
        let bins = list(json, "targets").filter(is_bin);
        Ok(Package {
            name: text_of(json, "name")?,
            dir: manifest.parent().context("a manifest in no folder")?.to_path_buf(),
            dependencies,
            bins: bins.map(|target| text_of(target, "name")).collect::<Result<_>>()?,
        })
    }
}

impl Dependency {
    fn from_json(json: &Value) -> Result<Dependency> {
        Ok(Dependency { name: text_of(json, "name")?, dev: json["kind"] == "dev" })
    }
}

fn text_of(json: &Value, field: &str) -> Result<String> {
    let text = json[field].as_str().with_context(|| format!("cargo metadata names no `{field}`"))?;
    Ok(text.to_owned())
}

fn list<'a>(json: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    json[field].as_array().into_iter().flatten()
}
