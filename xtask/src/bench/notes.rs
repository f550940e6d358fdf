//! What has to be said of a row: why a miss is a miss, and what was tried.

/// A row's name, and what is to be said of it. Rows without a note need none.
pub(super) const NOTES: &[(&str, &str)] = &[
    ("copy-qcow2-raw-warm-default", FLUSHED),
    ("copy-qcow2-raw-cold-default", FLUSHED),
    ("copy-raw-qcow2-warm-default", FLUSHED),
    ("copy-raw-qcow2-cold-default", FLUSHED),
    ("copy-qcow2-raw-cold-durable", COLD),
    ("copy-raw-qcow2-cold-durable", COLD),
    ("copy-qcow2-raw-warm-unflushed", UNFLUSHED),
    ("copy-raw-qcow2-warm-unflushed", UNFLUSHED),
    ("copy-qcow2-raw-cold-unflushed", COLD),
    ("copy-raw-qcow2-cold-unflushed", COLD),
    ("random-80-20", SMALL_CACHE),
    ("nbd-read-raw-qemu-fio", FIO),
];

/// Where a promise costs more than the copying.
const FLUSHED: &str = "Ours ends when the file is durable, the peer when the kernel has the data in memory. \
    The row `unflushed` gives both the promise of the peer, `durable` both that of ours.";

/// Where the disk decides.
const COLD: &str = "The data is read from and written to one virtual disk, which is the limit for both: io_uring, \
    threads, larger requests and earlier writeback were tried and made no difference that could be told from noise \
    (docs/design/0001-moving-bytes.md).";

/// Where neither waits for the disk, and memory decides.
const UNFLUSHED: &str = "Both copy into the page cache and leave: on two cores the kernel's own copying and \
    page allocation is most of the time, for the peer as for us, and the pages are still to be written when either ends.";

/// Where the cache is smaller than what is asked for.
const SMALL_CACHE: &str = "A lookup that is not in the cache costs one `pread` of an L2 slice, which is in the page \
    cache here: the 20 % of the requests that go everywhere nearly always pay it. The hot set fits. Larger slices, more \
    slices in a set and a larger default (it went from 8 to 32 MiB) were tried; only the last one helped.";

/// Where the load is slower than the server.
const FIO: &str = "fio's engine costs more for a request than our server does and is what limits the rate; `portolan bench` \
    puts the same load on both in the row without `-fio`. It also sends its requests one by one: what the server saves by \
    answering many at once it cannot save here, which is the CPU a request.";

/// The note on a row.
pub(super) fn on(name: &str) -> Option<&'static str> {
    NOTES.iter().find(|(row, _)| *row == name).map(|(_, note)| *note)
}
