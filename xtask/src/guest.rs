//! What booting a guest takes: an emulator, a kernel and a root file system, kept under `target/guest`.
//!
//! - `emulator`: runs QEMU. Where a newer qemu-utils than the archive's is installed, the archive's emulator cannot be
//!   installed beside it; it is unpacked here then, so that nothing on the machine is replaced.
//! - `vmlinuz`, `modules/`, `busybox`: Debian's kernel for clouds, what it needs to see a virtio disk and a CD, and a shell.
//! - `root.raw`: a minimal Debian in ext4.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{house, peers, process};

/// The kernel's drivers for a virtio disk, and for ISO 9660; ext4 it has built in.
const MODULES: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "cdrom",
    "isofs",
];

/// What is made here that everything else is only a step to.
const MADE: &[&str] = &["emulator", "vmlinuz", "modules", "busybox", "root.raw"];

/// Makes what is not there yet. The error is why that cannot be.
pub(crate) fn prepare(may_install: bool) -> Result<()> {
    let dir = house::Workspace::read(house::root())?.target_dir.join("guest");
    if MADE.iter().all(|name| dir.join(name).exists()) && has_modules(&dir) {
        return Ok(());
    }
    ensure!(may_install, "a guest to boot: --no-install");
    ensure!(cfg!(target_arch = "x86_64"), "a guest to boot: only made for x86-64");
    ensure!(process::which("apt-get").is_some(), "a guest to boot: no apt-get here");
    ensure!(process::is_root(), "a guest to boot: only root may make one");
    process::run(peers::apt().arg("update"))?;
    let scratch = dir.join("scratch");
    fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    let made = emulator(&dir).and_then(|()| kernel(&dir, &scratch)).and_then(|()| root(&dir, &scratch));
    // A whole Debian: nothing to leave lying about.
    fs::remove_dir_all(&scratch)?;
    made.context("a guest to boot")
}

fn emulator(dir: &Path) -> Result<()> {
    let script = dir.join("emulator");
    if script.exists() {
        return Ok(());
    }
    const PROGRAM: &str = "qemu-system-x86_64";
    if process::which(PROGRAM).is_some() || peers::install_beside(&["qemu-system-x86"]) {
        return runnable(&script, &format!("#!/bin/sh\nexec {PROGRAM} \"$@\"\n"));
    }
    let needed = depends("qemu-system-x86")?;
    let libraries: Vec<&str> =
        needed.iter().map(String::as_str).filter(|name| !name.starts_with("qemu-")).collect();
    ensure!(peers::install_beside(&libraries), "what the emulator needs cannot be installed");
    let unpacked = dir.join("qemu");
    download(&["qemu-system-x86", "qemu-system-common", "qemu-system-data"], dir, &unpacked)?;
    let words = format!(
        "#!/bin/sh\nhere=$(dirname \"$0\")/qemu/usr\n\
         export QEMU_MODULE_DIR=$here/lib/x86_64-linux-gnu/qemu\n\
         exec \"$here/bin/{PROGRAM}\" -L /usr/share/seabios -L \"$here/share/qemu\" \"$@\"\n"
    );
    runnable(&script, &words)
}

fn runnable(script: &Path, words: &str) -> Result<()> {
    let new = script.with_extension("new");
    fs::write(&new, words)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    Ok(fs::rename(new, script)?)
}

/// The packages that this one needs.
fn depends(package: &str) -> Result<Vec<String>> {
    let told = process::output(&mut process::command(&["apt-cache", "depends", package]))?;
    let names = told.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    // In angle brackets are names that only others provide.
    Ok(names.filter(|name| !name.starts_with('<')).map(str::to_owned).collect())
}

/// Unpacks these packages into a directory, installing nothing.
fn download(packages: &[&str], scratch: &Path, into: &Path) -> Result<()> {
    let here = scratch.join("packages");
    fs::create_dir_all(&here)?;
    let mut fetch = peers::apt();
    // A user of apt's own has no business in here.
    fetch.args(["-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(&here);
    process::run(&mut fetch)?;
    for entry in fs::read_dir(&here)? {
        let package = entry?.path();
        process::run(process::command(&["dpkg", "-x"]).arg(package).arg(into))?;
    }
    Ok(fs::remove_dir_all(here)?)
}

/// Whether all drivers are here: what was made once may have been made without some.
fn has_modules(dir: &Path) -> bool {
    MODULES.iter().all(|name| dir.join(format!("modules/{name}.ko")).exists())
}

fn kernel(dir: &Path, scratch: &Path) -> Result<()> {
    if ["vmlinuz", "busybox"].iter().all(|name| dir.join(name).exists()) && has_modules(dir) {
        return Ok(());
    }
    let image = depends("linux-image-cloud-amd64")?.into_iter().find(|name| name.starts_with("linux-image"));
    let image = image.context("there is no kernel for clouds in the archive")?;
    let unpacked = scratch.join("kernel");
    download(&[&image, "busybox-static"], scratch, &unpacked)?;
    let modules = dir.join("modules");
    fs::create_dir_all(&modules)?;
    for name in MODULES {
        let found = find(&unpacked, &|file| {
            file.split_once('.').is_some_and(|(n, e)| n == *name && e.starts_with("ko"))
        });
        let found = found.with_context(|| format!("the kernel has no module {name}"))?;
        let kept = modules.join(found.file_name().unwrap_or_default());
        fs::copy(&found, &kept)?;
        if kept.extension().is_some_and(|e| e == "xz") {
            process::run(process::command(&["xz", "--decompress", "--force"]).arg(kept))?;
        }
    }
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| unpacked.join(place));
    let busybox = places.iter().find(|place| place.is_file()).context("there is no busybox")?;
    fs::copy(busybox, dir.join("busybox"))?;
    let vmlinuz =
        find(&unpacked, &|file| file.starts_with("vmlinuz-")).context("the kernel has no vmlinuz")?;
    fs::copy(vmlinuz, dir.join("vmlinuz"))?;
    Ok(())
}

/// A file with such a name somewhere in a directory.
fn find(dir: &Path, is_it: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let (path, kind) = (entry.path(), entry.file_type().ok()?);
        if kind.is_dir() {
            if let Some(found) = find(&path, is_it) {
                return Some(found);
            }
        } else if kind.is_file() && entry.file_name().to_str().is_some_and(is_it) {
            return Some(path);
        }
    }
    None
}

fn root(dir: &Path, scratch: &Path) -> Result<()> {
    let image = dir.join("root.raw");
    if image.exists() {
        return Ok(());
    }
    let tree = scratch.join("root");
    debian(&tree, &[])?;
    let new = scratch.join("root.raw");
    process::run(process::command(&["mkfs.ext4", "-q", "-F", "-d"]).arg(&tree).arg(&new).arg("1G"))?;
    Ok(fs::rename(new, image)?)
}

/// A minimal Debian, with some packages more, as a directory.
pub(crate) fn debian(tree: &Path, packages: &[&str]) -> Result<()> {
    ensure!(
        process::which("debootstrap").is_some() || peers::install_beside(&["debootstrap"]),
        "debootstrap cannot be installed"
    );
    let release = fs::read_to_string("/etc/os-release")?;
    let Some(name) = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")) else {
        bail!("/etc/os-release names no release");
    };
    let mut bootstrap = process::command(&["debootstrap", "--variant=minbase"]);
    if !packages.is_empty() {
        bootstrap.arg(format!("--include={}", packages.join(",")));
    }
    println!("   a minimal Debian, which takes a minute or two, once");
    process::output(bootstrap.arg(name.trim_matches('"')).arg(tree)).map(drop)
}
