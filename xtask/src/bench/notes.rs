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
    ("random-80-20", RUNS),
    ("random-80-20-scattered", SMALL_CACHE),
    ("nbd-write-256k", LONG_WRITES),
    ("nbd-write-raw", LARGE_PAGES),
    ("tree-extract-ext4", EXTRACTED),
    ("tree-extract-xfs", EXTRACTED),
    ("nbd-read-raw-qemu-fio", FIO),
    ("nbd-read-raw-nbdkit-fio", FIO),
];

/// Where a promise costs more than the copying.
const FLUSHED: &str = "Ours ends when the file is durable, the peer when the kernel has the data in memory. \
    The row `unflushed` gives both the promise of the peer, `durable` both that of ours.";

/// Where the disk decides.
const COLD: &str = "The data comes from one virtual disk, and goes to it where it is flushed, which is the limit for both: \
    io_uring, reading ahead, requests past the page cache and earlier writeback were tried and brought nothing; more \
    threads than processors did (docs/design/0001-moving-bytes.md).";

/// Where neither waits for the disk, and memory decides.
const UNFLUSHED: &str = "Both copy into the page cache and leave: on two cores the kernel's own copying and \
    page allocation is most of the time, for the peer as for us, and the pages are still to be written when either ends.";

/// Where tables hardly take memory.
const RUNS: &str = "The image is as `qemu-img create -o preallocation=metadata` makes it: its clusters follow each other, and a \
    slice of a table that says so takes 16 bytes in our cache. The row `scattered` is the worst case.";

/// Where the cache is smaller than what is asked for.
const SMALL_CACHE: &str = "Nothing in these tables goes up evenly, and what is hot are runs of 1 MiB all over the disk: \
    every slice of every table is as hot as any other, and three of four lookups cost one `pread`. Larger slices, more \
    slices in a set and reading single words past the cache were tried, and made no difference that could be told from noise.";

/// Where the load is slower than the server.
const FIO: &str = "fio's engine costs more for a request than our server does and is what limits the rate; `portolan bench` \
    puts the same load on both in the row without `-fio`. It also sends its requests one by one: what the server saves by \
    answering many at once it cannot save here, which is the CPU a request.";

/// Where making files is most of it.
const EXTRACTED: &str = "Four fifths of our time are the kernel's, for making 12,000 files and copying pages, which is the \
    same work for everybody; and the fastest peer, 7-Zip, leaves out the thousand symbolic links that it calls \
    dangerous, and keeps neither owners nor attributes. Two threads, one system call less for each file (no `fstat`, no \
    second `open`, one `write`) and sharing only runs of 64 KiB and more were what helped.";

/// Where the file system decides.
const LARGE_PAGES: &str = "The file has just been read from end to end, so that the page cache holds it in large pieces, and of such a \
    piece ext4 walks every block for each write of 4 KiB: about 100 µs in the kernel, whoever asks. Where the pages had \
    come in one by one, as a guest asks for them, the same row was 1.44 (1.42–1.45), 8 µs a request (docs/design/0002).";

/// Where both copy every byte twice.
const LONG_WRITES: &str = "Load and server share two cores, and both servers copy each byte out of the socket and into the \
    page cache, which is nearly all of the time. An idle proxy takes every other request, which is 1.5 times faster where a \
    third core is free for the load; splicing from the socket into the file brought nothing (docs/design/0002).";

/// The note on a row.
pub(super) fn on(name: &str) -> Option<&'static str> {
    NOTES.iter().find(|(row, _)| *row == name).map(|(_, note)| *note)
}
