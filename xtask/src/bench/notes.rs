//! What has to be said of a row: why a miss is a miss, and what was tried.

/// A row's name, and what is to be said of it. Rows without a note need none.
pub(super) const NOTES: &[(&str, &str)] = &[
    ("copy-qcow2-raw-warm-default", FLUSHED),
    ("copy-qcow2-raw-cold-default", FLUSHED),
    ("copy-raw-qcow2-warm-default", FLUSHED),
    ("copy-raw-qcow2-cold-default", FLUSHED),
    ("copy-qcow2-raw-cold-durable", COLD),
    ("copy-raw-qcow2-cold-durable", COLD),
];

/// Where a promise costs more than the copying.
const FLUSHED: &str = "Ours ends when the file is durable, the peer when the kernel has the data in memory. \
    The row `unflushed` gives both the promise of the peer, `durable` both that of ours.";

/// Where the disk decides.
const COLD: &str = "The data is read from and written to one virtual disk, which is the limit for both: io_uring, \
    threads, larger requests and earlier writeback were tried and made no difference that could be told from noise \
    (docs/design/0001-moving-bytes.md).";

/// The note on a row.
pub(super) fn on(name: &str) -> Option<&'static str> {
    NOTES.iter().find(|(row, _)| *row == name).map(|(_, note)| *note)
}
