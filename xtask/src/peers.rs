//! The real tools that tests and benchmarks hold Portolan against, and how they come onto a machine.

use std::process::Command;

use anyhow::Result;

use crate::process;

/// A tool we are compared with: present when any of its programs is found.
struct Peer {
    programs: &'static [&'static str],
    /// Debian packages that bring it; the first that the archive has is taken.
    packages: &'static [&'static str],
}

const fn peer(programs: &'static [&'static str], packages: &'static [&'static str]) -> Peer {
    Peer { programs, packages }
}

const PEERS: &[Peer] = &[
    peer(&["qemu-img"], &["qemu-utils"]),
    peer(&["qemu-nbd"], &["qemu-utils"]),
    peer(&["fio"], &["fio"]),
    peer(&["nbdinfo"], &["libnbd-bin"]),
    peer(&["nbdcopy"], &["libnbd-bin"]),
    peer(&["nbdsh"], &["python3-libnbd"]),
    peer(&["nbdkit"], &["nbdkit"]),
    peer(&["nbd-client"], &["nbd-client"]),
    peer(&["openssl"], &["openssl"]),
    peer(&["mkfs.xfs"], &["xfsprogs"]),
    peer(&["mkfs.ext4"], &["e2fsprogs"]),
    peer(&["sfdisk"], &["fdisk"]),
    peer(&["sgdisk"], &["gdisk"]),
    peer(&["xorriso"], &["xorriso"]),
    peer(&["7zz", "7z"], &["7zip", "p7zip-full"]),
    peer(&["bsdtar"], &["libarchive-tools"]),
    peer(&["isoinfo"], &["genisoimage"]),
    peer(&["fincore"], &["util-linux-extra", "util-linux"]),
    peer(&["strace"], &["strace"]),
    peer(&["jq"], &["jq"]),
];

/// What was done, and what could not be.
#[derive(Default)]
pub(crate) struct Installed {
    pub(crate) new: Vec<String>,
    /// Each missing peer and why it is.
    pub(crate) missing: Vec<String>,
}

fn missing() -> impl Iterator<Item = &'static Peer> {
    PEERS.iter().filter(|peer| !peer.programs.iter().any(|program| process::which(program).is_some()))
}

/// Installs the peers this machine lacks, when it may. What is here already is left as it is: neither
/// upgraded nor downgraded.
pub(crate) fn install(may_install: bool) -> Result<Installed> {
    let mut done = Installed::default();
    if missing().next().is_none() {
        return Ok(done);
    }
    let reason = if !may_install {
        "--no-install"
    } else if process::which("apt-get").is_none() {
        "no apt-get here"
    } else if !process::is_root() {
        "only root may install"
    } else {
        process::run(apt().arg("update"))?;
        // One at a time: a package that cannot be had must not keep the others away.
        for peer in missing() {
            if let Some(package) = peer.packages.iter().find(|package| install_beside(&[package])) {
                done.new.push((*package).to_owned());
            }
        }
        "apt-get could not install it"
    };
    done.missing = missing().map(|peer| format!("{} ({reason})", peer.packages[0])).collect();
    done.missing.dedup();
    if !done.missing.is_empty() && !process::is_root() {
        let packages: Vec<_> = missing().map(|peer| peer.packages[0]).collect();
        println!("To install the missing peers: sudo apt-get install {}", packages.join(" "));
    }
    Ok(done)
}

/// Installs these packages beside what is here; whether that worked.
pub(crate) fn install_beside(packages: &[&str]) -> bool {
    let mut command = apt();
    command.args(["install", "--yes", "--no-install-recommends", "--no-upgrade", "--no-remove"]);
    process::run(command.args(packages)).is_ok()
}

/// apt-get, which asks nothing and says little.
pub(crate) fn apt() -> Command {
    let mut command = process::command(&["apt-get", "-qq"]);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
