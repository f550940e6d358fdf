//! How the command lines of servers and of the loads on them are spelled, where they are neither ours nor QEMU's.

use std::path::{Path, PathBuf};

use super::case::{Figure, Server, word, words};

/// An image, and where it is served.
pub(super) struct Served {
    pub(super) image: PathBuf,
    pub(super) format: &'static str,
    pub(super) writable: bool,
    pub(super) socket: PathBuf,
}

/// `nbdkit file`, which knows raw images only, and what it is called.
pub(super) fn nbdkit(served: &Served) -> (String, Server) {
    let mut command = words(&["nbdkit", "-f", "--exit-with-parent", "-U", &word(&served.socket)]);
    if !served.writable {
        command.push("-r".to_owned());
    }
    command.extend(words(&["file", &word(&served.image)]));
    ("nbdkit file".to_owned(), Server { command, socket: served.socket.clone() })
}

/// The figure that fio's load is judged by.
pub(super) const FIO_IOPS: Figure = Figure { at: "/jobs/0/read/iops", unit: "iops" };
/// Where it tells how many requests there were.
pub(super) const FIO_REQUESTS: &str = "/jobs/0/read/total_ios";

/// fio's nbd engine as the load on a server: random reads of 4k, 32 at a time.
pub(super) fn fio(socket: &Path, seconds: u32) -> Vec<String> {
    let uri = format!("--uri=nbd+unix:///?socket={}", word(socket));
    let runtime = format!("--runtime={seconds}");
    let load = ["--rw=randread", "--bs=4k", "--iodepth=32", "--norandommap", "--time_based", &runtime];
    let begin = ["fio", "--name=load", "--ioengine=nbd", &uri, "--output-format=json"];
    words(&[&begin[..], &load[..]].concat())
}
