//! `cargo xtask check-layers`: the shape of the house, proved.
//!
//! [`arrows`] holds the layer table and looks at what manifests declare; [`sources`] looks at the text of
//! the sources, through [`lexer`], for the rules that no lint knows; [`modules`] finds files nobody compiles.

mod arrows;
mod lexer;
mod modules;
mod sources;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::house::{self, Workspace};

/// A source file: its path from the root of the house, and its text.
struct SourceFile {
    path: PathBuf,
    text: String,
}

/// The folders whose sources are held to the rules.
const OURS: &[&str] = &["crates", "testkit", "xtask", "fuzz"];
/// Folders that are nobody's source.
const NOT_SOURCE: &[&str] = &["target", "corpus", "artifacts", "seeds"];
/// No folder of ours is this deep; a link that loops is.
const DEPTH_LIMIT: u32 = 16;

/// Runs every rule and names every violation.
pub(crate) fn task(args: &[String]) -> Result<()> {
    if let Some(arg) = args.first() {
        bail!("check-layers takes no `{arg}`");
    }
    let (violations, files) = check(house::root())?;
    for violation in &violations {
        eprintln!("  {violation}");
    }
    match violations.len() {
        0 => println!("check-layers: every arrow points down; {files} source files keep the rules"),
        1 => bail!("1 violation"),
        n => bail!("{n} violations"),
    }
    Ok(())
}

/// All violations below `root`, and how many source files were looked at.
fn check(root: &Path) -> Result<(Vec<String>, usize)> {
    let mut packages = Workspace::read(root)?.packages;
    let fuzz = root.join("fuzz");
    if fuzz.join("Cargo.toml").exists() {
        packages.extend(Workspace::read(&fuzz)?.packages);
    }
    let mut files = Vec::new();
    for folder in OURS {
        collect(root, &root.join(folder), 0, &mut files)?;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));

    let mut violations = arrows::check(&packages);
    violations.extend(arrows::check_folders(&crate_folders(root)?));
    violations.extend(sources::check(&files));
    violations.extend(modules::check(&files));
    Ok((violations, files.len()))
}

/// The names of the folders in crates/.
fn crate_folders(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("crates")).context("crates/")? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Every .rs file below `dir`.
fn collect(root: &Path, dir: &Path, depth: u32, files: &mut Vec<SourceFile>) -> Result<()> {
    if depth > DEPTH_LIMIT || !dir.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if !NOT_SOURCE.iter().any(|skip| name == *skip) {
                collect(root, &path, depth + 1, files)?;
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            files.push(SourceFile { path: path.strip_prefix(root)?.to_path_buf(), text });
        }
    }
    Ok(())
}
