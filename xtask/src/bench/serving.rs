//! The rows in which servers are measured.

use std::path::{Path, PathBuf};

use super::case::{Bar, Cache, Case, Check, Need, Place, Score, Server, Side};
use super::data::{Data, Sizes};
use super::scratch::Dirs;
use super::servers::{self, Served};
use super::{cli, qemu};

/// The images whose clusters are not there yet are so much larger than those served.
const SPARSE: u64 = 8;

/// So many bytes of those served allow one write that allocates: a run fills no more than a sixteenth of its image, and
/// leaves no more to be made durable than can be waited for.
const ALLOCATING: u64 = 128 << 10;

/// Every row, in the order of the page.
pub(super) fn all(binary: &Path, dirs: &Dirs, sizes: &Sizes) -> Vec<Case> {
    let rows = Rows { binary, dirs, sizes, socket: dirs.socket() };
    let mut cases = rows.reading_raw();
    cases.extend(rows.reading_qcow2());
    cases.push(rows.latency());
    cases.extend(rows.writing());
    cases.extend(rows.streaming());
    cases.push(rows.memory());
    cases
}

struct Rows<'a> {
    binary: &'a Path,
    dirs: &'a Dirs,
    sizes: &'a Sizes,
    socket: PathBuf,
}

/// Who puts the load on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Ours,
    Fio,
}

/// Random reads of 4k, 32 at a time, on one connection.
const RANDOM: &[&str] = &["--pattern", "random", "--size", "4k", "--depth", "32"];

impl Rows<'_> {
    /// 4k random reads of a raw image in the page cache.
    fn reading_raw(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for by in [By::Ours, By::Fio] {
            let (suffix, score, requests, needs) = match by {
                By::Ours => ("", cli::IOPS, cli::REQUESTS, Vec::new()),
                By::Fio => {
                    let needs = vec![Need::FioEngine("nbd")];
                    ("-fio", servers::FIO_IOPS, servers::FIO_REQUESTS, needs)
                }
            };
            let load = match by {
                By::Ours => self.load(RANDOM),
                By::Fio => servers::fio(&self.socket, self.sizes.load_seconds),
            };
            let row = |peer: &str, peers: Vec<(String, Server)>, ratio, cpu| Case {
                needs: [&needs[..], &[Need::Program(program(peer))]].concat(),
                ours: self.ours(Data::ServedRaw, "raw", &load),
                peers: sides(peers, &load),
                score: Score::Most(score),
                requests: Some(requests),
                bars: vec![Bar::Ratio(ratio), Bar::CpuEach(cpu)],
                ..self.reading(
                    format!("nbd-read-raw-{peer}{suffix}"),
                    "4k random reads of a raw image in the page cache, 32 at a time on one unix connection",
                    Data::ServedRaw,
                    "raw",
                )
            };
            let served = self.served(Data::ServedRaw, "raw", false);
            cases.push(row("qemu", qemu::serve(&served), 2.0, 0.35));
            cases.push(row("nbdkit", vec![servers::nbdkit(&served)], 1.25, 0.7));
        }
        cases
    }

    /// The same of qcow2, beside QEMU and beside our own raw.
    fn reading_qcow2(&self) -> Vec<Case> {
        let load = self.load(RANDOM);
        let kinds = [
            ("qcow2", "an allocated qcow2", Data::ServedQcow2),
            ("overlay", "a qcow2 that finds all in its backing file, a qcow2", Data::ServedOverlay),
        ];
        let mut cases = Vec::new();
        for (kind, words, data) in kinds {
            let served = self.served(data, "qcow2", false);
            let row = |name: String, work: &str| Case {
                ours: self.ours(data, "qcow2", &load),
                ..self.reading(name, work, data, "qcow2")
            };
            cases.push(Case {
                needs: vec![Need::Program("qemu-nbd")],
                peers: sides(qemu::serve(&served), &load),
                bars: vec![Bar::Ratio(2.0)],
                ..row(format!("nbd-read-{kind}-qemu"), &format!("the same of {words}"))
            });
            cases.push(Case {
                inputs: vec![data, Data::ServedRaw],
                peers: vec![Side {
                    label: "serve -f raw".to_owned(),
                    ..self.ours(Data::ServedRaw, "raw", &load)
                }],
                bars: vec![Bar::Ratio(0.85)],
                check: Check::Nothing,
                ..row(
                    format!("nbd-read-{kind}-own"),
                    &format!("the same of {words}; the peer is ours with the raw image"),
                )
            });
        }
        let served = self.served(Data::ScatteredQcow2, "qcow2", false);
        cases.push(Case {
            needs: vec![Need::Program("qemu-nbd")],
            ours: self.ours(Data::ScatteredQcow2, "qcow2", &load),
            peers: sides(qemu::serve(&served), &load),
            cache: Cache::AsIs,
            check: Check::Nothing,
            ..self.reading(
                "nbd-read-qcow2-1tib".to_owned(),
                "the same of a 1 TiB qcow2, all mapped in no order, whose tables fit nobody's cache",
                Data::ScatteredQcow2,
                "qcow2",
            )
        });
        cases
    }

    /// One request at a time.
    fn latency(&self) -> Case {
        let load = self.load(&["--pattern", "random", "--size", "4k", "--depth", "1"]);
        Case {
            needs: vec![Need::Program("qemu-nbd"), Need::Program("nbdkit")],
            ours: self.ours(Data::ServedRaw, "raw", &load),
            peers: self.better(Data::ServedRaw, false, &load),
            score: Score::Least(cli::MEDIAN),
            bars: vec![Bar::Share(0.9)],
            ..self.reading(
                "nbd-latency".to_owned(),
                "4k random reads of a raw image in the page cache, one at a time: the median latency; the better peer",
                Data::ServedRaw,
                "raw",
            )
        }
    }

    /// 4k random writes with flushes.
    fn writing(&self) -> Vec<Case> {
        let switches = [RANDOM, &["--write", "--flush-every", "32"]].concat();
        let load = self.load(&switches);
        let words = "4k random writes, 32 at a time on one unix connection, a flush every 32";
        let over = |name: &str, words: &str, data: Data, format: &'static str, check| Case {
            needs: vec![Need::Program("qemu-nbd")],
            ours: self.side(&self.served(data, format, true), &load),
            peers: sides(qemu::serve(&self.served(data, format, true)), &load),
            bars: vec![Bar::Ratio(1.3)],
            check,
            ..self.reading(name.to_owned(), words, data, format)
        };
        let written = self.dirs.path(Data::WrittenQcow2);
        vec![
            over(
                "nbd-write-raw",
                &format!("{words}, to a raw image"),
                Data::WrittenRaw,
                "raw",
                Check::Nothing,
            ),
            self.allocating(&switches, &format!("{words}, to a new qcow2 each run: nearly all allocate")),
            over(
                "nbd-write-qcow2",
                &format!("{words}, to an allocated qcow2"),
                Data::WrittenQcow2,
                "qcow2",
                Check::Sound(written),
            ),
        ]
    }

    fn allocating(&self, switches: &[&str], work: &str) -> Case {
        let writes = (self.sizes.served / ALLOCATING).to_string();
        let load = cli::load(self.binary, &self.socket, ["--operations", &writes], switches);
        let image = self.dirs.of(Place::Plain).join("written-new.qcow2");
        let create = qemu::create(&image, self.sizes.served * SPARSE);
        let served =
            Served { image: image.clone(), format: "qcow2", writable: true, socket: self.socket.clone() };
        let anew = |side: Side| Side { before: vec![create.clone()], output: Some(image.clone()), ..side };
        Case {
            needs: vec![Need::Program("qemu-nbd")],
            inputs: Vec::new(),
            cache: Cache::AsIs,
            ours: anew(self.side(&served, &load)),
            peers: sides(qemu::serve(&served), &load).into_iter().map(anew).collect(),
            bars: vec![Bar::Ratio(1.3)],
            check: Check::Sound(image.clone()),
            ..self.reading("nbd-write-qcow2-new".to_owned(), work, Data::WrittenQcow2, "qcow2")
        }
    }

    /// Large requests, one behind the other.
    fn streaming(&self) -> Vec<Case> {
        [false, true].map(|write| self.stream(write)).into()
    }

    fn stream(&self, write: bool) -> Case {
        let (name, data, check) = match write {
            false => ("read", Data::ServedRaw, Check::Serves(self.dirs.path(Data::ServedRaw), "raw")),
            true => ("write", Data::WrittenRaw, Check::Nothing),
        };
        let switches = ["--pattern", "sequential", "--size", "256k", "--depth", "16", "--write"];
        let load = self.load(if write { &switches } else { &switches[..6] });
        let served = self.served(data, "raw", write);
        Case {
            needs: vec![Need::Program("qemu-nbd"), Need::Program("nbdkit")],
            ours: self.side(&served, &load),
            peers: self.better(data, write, &load),
            score: Score::Most(cli::BYTES),
            bars: vec![Bar::Ratio(1.3)],
            check,
            ..self.reading(
                format!("nbd-{name}-256k"),
                &format!("256k sequential {name}s of a raw image, 16 at a time on one unix connection; the better peer"),
                data,
                "raw",
            )
        }
    }

    /// What a server needs to be there, and to serve many.
    fn memory(&self) -> Case {
        let switches = ["--pattern", "random", "--size", "4k", "--depth", "128", "--connections", "16"];
        let load = self.load(&switches);
        let served = self.served(Data::ServedRaw, "raw", false);
        Case {
            needs: vec![Need::Program("qemu-nbd")],
            ours: self.ours(Data::ServedRaw, "raw", &load),
            peers: sides(qemu::serve(&served), &load),
            score: Score::Rss,
            bars: vec![Bar::Share(1.0), Bar::RestRss(1.0)],
            ..self.reading(
                "nbd-memory".to_owned(),
                "resident memory of the server under 4k random reads, 16 connections with 128 at a time",
                Data::ServedRaw,
                "raw",
            )
        }
    }

    /// What most rows have in common.
    fn reading(&self, name: String, work: &str, data: Data, format: &'static str) -> Case {
        Case {
            name,
            work: work.to_owned(),
            place: Place::Plain,
            cache: Cache::Warm,
            inputs: vec![data],
            needs: Vec::new(),
            ours: Side::default(),
            peers: Vec::new(),
            repeat: 1,
            score: Score::Most(cli::IOPS),
            requests: Some(cli::REQUESTS),
            check: Check::Serves(self.dirs.path(data), format),
            bars: Vec::new(),
            payload: 0,
        }
    }

    fn load(&self, more: &[&str]) -> Vec<String> {
        cli::load(self.binary, &self.socket, ["--seconds", &self.sizes.load_seconds.to_string()], more)
    }

    fn served(&self, data: Data, format: &'static str, writable: bool) -> Served {
        Served { image: self.dirs.path(data), format, writable, socket: self.socket.clone() }
    }

    /// Ours, read-only.
    fn ours(&self, data: Data, format: &'static str, load: &[String]) -> Side {
        self.side(&self.served(data, format, false), load)
    }

    fn side(&self, served: &Served, load: &[String]) -> Side {
        let label = format!("serve -f {}", served.format);
        let server = Some(cli::serve(self.binary, served));
        Side { label, server, commands: vec![load.to_vec()], ..Side::default() }
    }

    /// All peers that serve raw images.
    fn better(&self, data: Data, writable: bool, load: &[String]) -> Vec<Side> {
        let served = self.served(data, "raw", writable);
        let mut all = qemu::serve(&served);
        all.push(servers::nbdkit(&served));
        sides(all, load)
    }
}

/// Each of these servers under this load.
fn sides(servers: Vec<(String, Server)>, load: &[String]) -> Vec<Side> {
    let side = |(label, server)| Side {
        label,
        server: Some(server),
        commands: vec![load.to_vec()],
        ..Side::default()
    };
    servers.into_iter().map(side).collect()
}

/// The program of a peer.
fn program(peer: &str) -> &'static str {
    if peer == "qemu" { "qemu-nbd" } else { "nbdkit" }
}
