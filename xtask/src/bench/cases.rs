//! The rows.

use std::path::Path;

use super::case::{Bar, Cache, Case, Check, MIB, Place, Score, Side};
use super::cli;
use super::data::{Data, Sizes};
use super::qemu::{self, Conversion, Durability};
use super::scratch::Dirs;
use super::serving;
use super::trees;

/// Every row, in the order of the page.
pub(super) fn all(binary: &Path, dirs: &Dirs, sizes: &Sizes) -> Vec<Case> {
    let house = Rows { binary, dirs, sizes };
    let mut cases = house.copying();
    cases.extend(house.cloning());
    cases.extend(house.compressing());
    cases.extend([house.opening(), house.charting()]);
    cases.extend(house.random_reading());
    cases.extend(serving::all(binary, dirs, sizes));
    cases.extend(trees::all(binary, dirs));
    cases
}

struct Rows<'a> {
    binary: &'a Path,
    dirs: &'a Dirs,
    sizes: &'a Sizes,
}

/// The images a conversion goes from and to.
#[derive(Clone, Copy)]
struct Formats {
    from: &'static str,
    to: &'static str,
}

impl Rows<'_> {
    /// Conversions in which the data has to be copied.
    fn copying(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for formats in [Formats { from: "qcow2", to: "raw" }, Formats { from: "raw", to: "qcow2" }] {
            for cache in [Cache::Warm, Cache::Cold] {
                for durability in [Durability::Default, Durability::Equal, Durability::Neither] {
                    cases.push(self.copy(formats, cache, durability));
                }
            }
        }
        cases
    }

    fn copy(&self, formats: Formats, cache: Cache, durability: Durability) -> Case {
        let input = if formats.from == "raw" { Data::HalfRaw } else { Data::HalfQcow2 };
        let (ours, peer) = self.outputs(Place::Plain, formats.to);
        let source = self.dirs.path(input);
        let conversion = Conversion { source: &source, from: formats.from, output: &peer, to: formats.to };
        let temperature = if cache == Cache::Cold { "cold" } else { "warm" };
        let (suffix, flushed) = match durability {
            Durability::Default => ("default", "the peer never flushes"),
            Durability::Equal => ("durable", "both durable"),
            Durability::Neither => ("unflushed", "neither flushes"),
        };
        let mut side = cli::convert(self.binary, (&source, formats.from), &ours, formats.to);
        if durability == Durability::Neither {
            side = cli::unflushed(side);
        }
        Case {
            name: format!("copy-{}-{}-{temperature}-{suffix}", formats.from, formats.to),
            work: format!(
                "convert {} → {}, {} half full, ext4, {temperature} cache; {flushed}",
                formats.from,
                formats.to,
                size(self.sizes.half)
            ),
            place: Place::Plain,
            cache,
            inputs: vec![input],
            needs: Vec::new(),
            ours: side,
            peers: conversion.any(durability),
            repeat: 1,
            score: Score::Wall,
            requests: None,
            check: Check::Images { format: formats.to, source: (source.clone(), formats.from) },
            bars: vec![Bar::Ratio(1.2), Bar::RssMib(64.0)],
            payload: self.sizes.half / 2,
        }
    }

    /// Conversions in which nothing needs to be copied.
    fn cloning(&self) -> Vec<Case> {
        let formats = [("raw", "qcow2"), ("qcow2", "raw"), ("qcow2", "qcow2")];
        let formats = formats.map(|(from, to)| Formats { from, to });
        formats.iter().flat_map(|&formats| [self.clone(formats, false), self.clone(formats, true)]).collect()
    }

    fn clone(&self, formats: Formats, offload: bool) -> Case {
        let input = if formats.from == "raw" { Data::FullRaw } else { Data::FullQcow2 };
        let (ours, peer) = self.outputs(Place::Reflink, formats.to);
        let source = self.dirs.path(input);
        let conversion = Conversion { source: &source, from: formats.from, output: &peer, to: formats.to };
        let written = Bar::WrittenShare(0.01);
        let (peers, bars, suffix, flags) = if offload {
            (
                conversion.offloading(Durability::Equal),
                vec![written],
                "-offload",
                "with the peer's copy offloading",
            )
        } else {
            let peers = conversion.copying(Durability::Default);
            (peers, vec![Bar::Ratio(100.0), written], "", "the peer never flushes")
        };
        Case {
            name: format!("reflink-{}-{}{suffix}", formats.from, formats.to),
            work: format!(
                "convert {} → {}, {} of data, XFS with reflink; {flags}",
                formats.from,
                formats.to,
                size(self.sizes.full)
            ),
            place: Place::Reflink,
            cache: Cache::AsIs,
            inputs: vec![input],
            needs: Vec::new(),
            ours: cli::convert(self.binary, (&source, formats.from), &ours, formats.to),
            peers,
            repeat: 1,
            score: Score::Wall,
            requests: None,
            check: Check::Images { format: formats.to, source: (source.clone(), formats.from) },
            bars,
            payload: self.sizes.full,
        }
    }

    /// Conversions with compression.
    fn compressing(&self) -> Vec<Case> {
        ["zstd", "zlib"].map(|codec| self.compress(codec)).into()
    }

    fn compress(&self, codec: &str) -> Case {
        let input = Data::MixedRaw;
        let (ours, peer) = self.outputs(Place::Plain, "qcow2");
        let source = self.dirs.path(input);
        let conversion = Conversion { source: &source, from: "raw", output: &peer, to: "qcow2" };
        Case {
            name: format!("compress-{codec}"),
            work: format!(
                "convert -c {codec}, {} of mixed data, ext4, warm; the peer never flushes",
                size(self.sizes.mixed)
            ),
            place: Place::Plain,
            cache: Cache::Warm,
            inputs: vec![input],
            needs: Vec::new(),
            ours: cli::compress(self.binary, (&source, "raw"), &ours, codec),
            peers: conversion.compressing(codec),
            repeat: 1,
            score: Score::Wall,
            requests: None,
            check: Check::Images { format: "qcow2", source: (source.clone(), "raw") },
            bars: vec![Bar::Ratio(1.2), Bar::Size(1.02)],
            payload: self.sizes.mixed,
        }
    }

    /// Opening an image with a large table, for a look at its head.
    fn opening(&self) -> Case {
        let image = self.dirs.path(Data::MappedQcow2);
        Case {
            ours: cli::info(self.binary, &image),
            peers: vec![qemu::info(&image)],
            repeat: 20,
            check: Check::SameNumber(cli::VIRTUAL_SIZE),
            bars: vec![Bar::Ratio(1.0)],
            ..self.mapped("info-1tib", "open + info of a 1 TiB qcow2, 20 times")
        }
    }

    /// Telling where everything is.
    fn charting(&self) -> Case {
        let image = self.dirs.path(Data::MappedQcow2);
        Case {
            ours: cli::chart(self.binary, &image),
            peers: vec![qemu::map(&image)],
            check: Check::SameNumber(cli::LAST_OFFSET),
            bars: vec![Bar::Ratio(1.0)],
            ..self.mapped("chart-1tib", "telling where every byte of a 1 TiB qcow2 is, all of it mapped")
        }
    }

    /// Random reads with little memory, beside the same with enough of it.
    fn random_reading(&self) -> Vec<Case> {
        const MAPPED: Data = Data::MappedQcow2;
        let rows = [
            (
                "random-uniform",
                MAPPED,
                None,
                "random 4k reads of a fully mapped 1 TiB qcow2; the peer is ours with room for all tables",
            ),
            ("random-80-20", MAPPED, Some("80/20"), "the same, 80% of the reads in 20% of the image"),
            (
                "random-80-20-scattered",
                Data::ScatteredQcow2,
                Some("80/20"),
                "the same, where no two clusters that follow each other on the disk do so in the file",
            ),
        ];
        rows.map(|(name, data, hot, work)| {
            let image = self.dirs.path(data);
            let read = |cache| cli::random_read(self.binary, &image, cache, self.sizes.read_seconds, hot);
            Case {
                inputs: vec![data],
                ours: read(cli::SMALL_CACHE),
                peers: vec![read(cli::LARGE_CACHE)],
                score: Score::Most(cli::IOPS),
                bars: [Bar::RssMib(64.0)].into_iter().chain(hot.map(|_| Bar::Ratio(0.9))).collect(),
                ..self.mapped(name, work)
            }
        })
        .into()
    }

    /// What the rows on the large, empty, fully mapped image have in common.
    fn mapped(&self, name: &str, work: &str) -> Case {
        Case {
            name: name.to_owned(),
            work: work.to_owned(),
            place: Place::Plain,
            cache: Cache::AsIs,
            inputs: vec![Data::MappedQcow2],
            needs: Vec::new(),
            ours: Side::prints("", Vec::new()),
            peers: Vec::new(),
            repeat: 1,
            score: Score::Wall,
            requests: None,
            check: Check::Nothing,
            bars: Vec::new(),
            payload: 0,
        }
    }

    /// Where our output and the peer's go.
    fn outputs(&self, place: Place, format: &str) -> (std::path::PathBuf, std::path::PathBuf) {
        let dir = self.dirs.of(place);
        (dir.join(format!("ours.{format}")), dir.join(format!("peer.{format}")))
    }
}

fn size(bytes: u64) -> String {
    if bytes >= 1024 * MIB { format!("{} GiB", bytes / (1024 * MIB)) } else { format!("{} MiB", bytes / MIB) }
}
