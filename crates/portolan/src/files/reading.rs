//! Bytes out of a disk or a file, one after the other.

use crate::{Found, Node, Watch};
use chart::{Disk, Error, Kind, Remedy, Result, Wait};
use std::io::Write;
use std::sync::Arc;

/// What is read at once.
const PIECE: usize = 1 << 20;

/// What `found` holds, as a disk: of a file its bytes.
pub fn bytes(found: &Found) -> Result<Arc<Disk>> {
    match found {
        Found::Disk(opened) => Ok(Arc::clone(&opened.disk)),
        Found::Node(node) => file(node),
    }
}

fn file(node: &Node) -> Result<Arc<Disk>> {
    let what = match node.fs.stat(node.inode)?.kind {
        fs::Kind::File => return node.fs.file(node.inode),
        fs::Kind::Directory => Error::invalid("is a directory").with_remedy(Remedy::ListOrExtract),
        _ => Error::invalid("is no regular file"),
    };
    Err(what.in_path(node.spec.to_string()))
}

/// Writes `len` bytes of a disk from `offset` on, or what of them there is. How many those were.
pub fn write(
    disk: &Disk,
    offset: u64,
    len: Option<u64>,
    out: &mut dyn Write,
    watch: Watch<'_>,
) -> Result<u64> {
    let rest = disk.len().checked_sub(offset);
    let past = || {
        let what = format!("there are {} bytes, none at {offset}", disk.len());
        Error::new(Kind::OutOfRange, what).in_path(disk.name())
    };
    let total = len.unwrap_or(u64::MAX).min(rest.ok_or_else(past)?);
    let mut room = vec![0; PIECE.min(usize::try_from(total).unwrap_or(PIECE))];
    let mut done = 0;
    while done < total {
        let now = &mut room[..usize::try_from(total - done).unwrap_or(PIECE).min(PIECE)];
        disk.read_at(offset + done, now, Wait::Allowed)?;
        out.write_all(now)?;
        done += now.len() as u64;
        watch.step(done, total)?;
    }
    Ok(total)
}
