//! How our own command line is spelled. The one place to change when a flag does.

use std::path::Path;

use super::case::{Figure, Server, Side, word, words};
use super::servers::Served;

/// Makes an argument list of words that may be borrowed or made.
macro_rules! argv {
    ($($word:expr),* $(,)?) => { vec![$(String::from($word)),*] };
}

/// `portolan convert -f FORMAT -O FORMAT SRC DST`. Our convert is durable: it flushes before it renames.
pub(super) fn convert(binary: &Path, (source, from): (&Path, &str), output: &Path, to: &str) -> Side {
    let command = argv![word(binary), "convert", "-f", from, "-O", to, word(source), word(output)];
    let output = Some(output.to_owned());
    Side { label: "convert".to_owned(), commands: vec![command], output, ..Side::default() }
}

/// The same, leaving it to the system when to make the output durable.
pub(super) fn unflushed(mut side: Side) -> Side {
    side.commands[0].push("--no-flush".to_owned());
    side.label = "convert --no-flush".to_owned();
    side
}

/// The same into a compressed qcow2.
pub(super) fn compress(binary: &Path, source: (&Path, &str), output: &Path, codec: &str) -> Side {
    let mut side = convert(binary, source, output, "qcow2");
    side.commands[0].extend(argv!["-c", "-o", format!("compression_type={codec}")]);
    side.label = format!("convert -c, {codec}");
    side
}

/// `portolan info SPEC --json`.
pub(super) fn info(binary: &Path, image: &Path) -> Side {
    Side::prints("info --json", argv![word(binary), "info", word(image), "--json"])
}

/// Where `info --json` tells the size a guest sees; QEMU's name for it.
pub(super) const VIRTUAL_SIZE: &str = "/virtual-size";

/// `portolan chart`.
pub(super) fn chart(binary: &Path, image: &Path) -> Side {
    Side::prints("chart --json", argv![word(binary), "chart", word(image), "--json"])
}

/// Where the chart of a mapped TiB says in what place of the file the last of its 2048 ranges is, QEMU's as well.
pub(super) const LAST_OFFSET: &str = "/2047/offset";

/// The metadata cache of the row that has to do with little memory: what an image gets where nothing is said.
pub(super) const SMALL_CACHE: &str = "32M";
/// A cache that holds all 128 MiB of L2 tables of a 1 TiB image.
pub(super) const LARGE_CACHE: &str = "1G";
/// The figures that `portolan bench --json` is judged by.
pub(super) const IOPS: Figure = Figure { at: "/iops", unit: "iops" };
pub(super) const BYTES: Figure = Figure { at: "/bytes-per-second", unit: "bytes a second" };
pub(super) const MEDIAN: Figure = Figure { at: "/latency/p50", unit: "ns" };
/// Where it tells how many requests there were.
pub(super) const REQUESTS: &str = "/operations";

/// `portolan bench`: random 4k reads, 32 at a time; `hot` gives a part of the image most of them.
pub(super) fn random_read(binary: &Path, image: &Path, cache: &str, seconds: u32, hot: Option<&str>) -> Side {
    let seconds = seconds.to_string();
    let mut command = argv![word(binary), "bench", "--pattern", "random", "--size", "4k", "--depth", "32"];
    command.extend(words(&["--seconds", &seconds, "--cache", cache]));
    if let Some(hot) = hot {
        command.extend(words(&["--hot", hot]));
    }
    command.extend([word(image), "--json".to_owned()]);
    Side::prints(&format!("bench --cache {cache}"), command)
}

/// `portolan serve`.
pub(super) fn serve(binary: &Path, served: &Served) -> Server {
    let listen = format!("unix:{}", word(&served.socket));
    let mut command = argv![word(binary), "serve", "--quiet", "--listen", listen, "-f", served.format];
    if !served.writable {
        command.push("--read-only".to_owned());
    }
    command.push(word(&served.image));
    Server { command, socket: served.socket.clone() }
}

/// `portolan serve DIR` to a client on its standard streams.
pub(super) fn serve_directory(binary: &Path, dir: &Path) -> Vec<String> {
    argv![word(binary), "serve", "--quiet", "--listen", "stdio", word(dir)]
}

/// `portolan extract` of the first partition.
pub(super) fn extract(binary: &Path, image: &Path, output: &Path) -> Side {
    let command = argv![word(binary), "extract", format!("{}#1:/", word(image)), "-o", word(output)];
    Side {
        label: "extract".to_owned(),
        commands: vec![command],
        output: Some(output.to_owned()),
        ..Side::default()
    }
}

/// `portolan bench` as the load on a server, whoever made that, with a switch that ends it and `more`.
pub(super) fn load(binary: &Path, socket: &Path, until: [&str; 2], more: &[&str]) -> Vec<String> {
    let mut command = argv![word(binary), "bench", "--json", until[0], until[1], "-f", "raw"];
    command.extend(words(more));
    command.push(format!("nbd+unix:///?socket={}", word(socket)));
    command
}
