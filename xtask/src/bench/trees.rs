//! The rows on directories: one as a disk, and one out of a disk.

use std::path::{Path, PathBuf};

use super::case::{Bar, Cache, Case, Check, Need, Place, Score, Side, word, words};
use super::cli;
use super::data::Data;
use super::scratch::Dirs;

/// Where an ISO 9660 volume begins to say what it is.
const DESCRIPTOR: &str = "32768";

/// Every row.
pub(super) fn all(binary: &Path, dirs: &Dirs) -> Vec<Case> {
    let rows = Rows { binary, dirs };
    let mut cases = rows.serving();
    cases.extend([Place::Plain, Place::Reflink].map(|place| rows.extracting(place)));
    cases
}

struct Rows<'a> {
    binary: &'a Path,
    dirs: &'a Dirs,
}

impl Rows<'_> {
    /// A directory as a disk, until its first byte has been served.
    fn serving(&self) -> Vec<Case> {
        let tree = self.dirs.path(Data::Tree);
        let ours = Side::prints("serve DIR", first_byte(&cli::serve_directory(self.binary, &tree)));
        let work = "a Debian root as an ISO 9660 disk, until its first byte is served";
        let row = |name: &str, more: &str| Case {
            ours: ours.clone(),
            ..self.row(name, &format!("{work}; {more}"), Place::Plain)
        };
        let iso = self.dirs.of(Place::Plain).join("peer.iso");
        let xorriso = Side {
            output: Some(iso.clone()),
            ..Side::prints(
                "xorriso",
                words(&["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-o", &word(&iso), &word(&tree)]),
            )
        };
        let nbdkit = words(&["nbdkit", "-s", "iso", &word(&tree), "params=-R -J -quiet"]);
        let find = words(&["find", &word(&tree), "-printf", "%s %T@ %n %i\\n"]);
        vec![
            Case {
                needs: vec![Need::Program("xorriso")],
                peers: vec![xorriso],
                bars: vec![Bar::Ratio(20.0)],
                ..row("tree-serve-xorriso", "the peer builds an image of it")
            },
            Case {
                needs: vec![Need::Program("nbdkit"), Need::Program("xorrisofs")],
                peers: vec![Side::prints("nbdkit iso", first_byte(&nbdkit))],
                bars: vec![Bar::Ratio(20.0)],
                ..row("tree-serve-nbdkit", "the peer does so before it serves")
            },
            Case {
                peers: vec![Side::prints("find -printf", find)],
                bars: vec![Bar::Share(3.0)],
                ..row("tree-serve-find", "the peer only looks at every file")
            },
        ]
    }

    /// Everything out of a disk.
    fn extracting(&self, place: Place) -> Case {
        let (tree, qcow2, raw) = match place {
            Place::Plain => (Data::Tree, Data::TreeQcow2, Data::TreeRaw),
            Place::Reflink => (Data::SharedTree, Data::SharedTreeQcow2, Data::SharedTreeRaw),
        };
        let dir = self.dirs.of(place);
        let (ours, peer, mount) = (dir.join("ours.tree"), dir.join("peer.tree"), dir.join("peer.mount"));
        let raw_path = self.dirs.path(raw);
        let at_least = if place == Place::Plain { 2.0 } else { 2.5 };
        Case {
            inputs: vec![qcow2, raw],
            needs: vec![Need::Program("debugfs")],
            ours: cli::extract(self.binary, &self.dirs.path(qcow2), &ours),
            peers: peers(&raw_path, &peer, &mount),
            cache: Cache::Warm,
            check: Check::Trees(self.dirs.path(tree)),
            bars: vec![Bar::Ratio(at_least)],
            ..self.row(
                &format!("tree-extract-{}", if place == Place::Plain { "ext4" } else { "xfs" }),
                &format!("a Debian root out of a qcow2 with GPT and ext4 to {place}; the fastest peer, out of a bare ext4"),
                place,
            )
        }
    }

    fn row(&self, name: &str, work: &str, place: Place) -> Case {
        Case {
            name: name.to_owned(),
            work: work.to_owned(),
            place,
            cache: Cache::AsIs,
            inputs: vec![Data::Tree],
            needs: Vec::new(),
            ours: Side::default(),
            peers: Vec::new(),
            repeat: 1,
            score: Score::Wall,
            requests: None,
            check: Check::Nothing,
            bars: Vec::new(),
            payload: 0,
        }
    }
}

/// The ways there are to take all files out of a raw image of an ext4.
fn peers(image: &Path, output: &Path, mount: &Path) -> Vec<Side> {
    let (image, out, mount) = (word(image), word(output), word(mount));
    let side = |label: &str, commands: Vec<Vec<String>>| Side {
        label: label.to_owned(),
        commands,
        output: Some(PathBuf::from(&out)),
        ..Side::default()
    };
    let mounted = format!(
        "mkdir -p {mount} && mount -o loop,ro {image} {mount} && cp -a --reflink=auto {mount} {out}; done=$?; umount {mount}; exit $done"
    );
    // 2 is what it ends with for links that it calls dangerous and leaves out.
    let unpacked = format!("7zz x -y -snld -bd -o{out} {image}; test $? -le 2");
    vec![
        side("7zz x", vec![words(&["sh", "-c", &unpacked])]),
        side(
            "debugfs rdump",
            vec![words(&["mkdir", "-p", &out]), words(&["debugfs", "-R", &format!("rdump / {out}"), &image])],
        ),
        side("loop mount, cp -a", vec![words(&["sh", "-c", &mounted])]),
    ]
}

/// The time until a server that speaks on its standard streams has served a sector.
fn first_byte(server: &[String]) -> Vec<String> {
    let this = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("xtask"));
    [&[word(&this), "first-byte".to_owned(), DESCRIPTOR.to_owned()], server].concat()
}
