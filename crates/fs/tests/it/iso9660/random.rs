//! Random trees.

use super::parse;
use super::tree::{Dir, compare};
use fs::iso9660::Options;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// A name of few letters, so that names meet, and of lengths around where they are cut.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => prop::sample::select(&b"aAbB_.1;"[..]),
        1 => (1..=255_u8).prop_filter("no slash", |&byte| byte != b'/'),
    ];
    let character = prop::sample::select(&["a", ".", "ä", "日", "🗺", "_1", "x"][..]);
    let len = || prop_oneof![4 => 1..4_usize, 1 => 28..34_usize, 1 => 100..110_usize, 1 => 180..255_usize];
    prop_oneof![
        len().prop_flat_map(move |len| prop::collection::vec(byte.clone(), len)),
        len().prop_flat_map(move |len| prop::collection::vec(character.clone(), len)).prop_map(
            |characters| {
                let mut name = String::new();
                for character in characters {
                    if name.len() + character.len() <= 255 {
                        name += character;
                    }
                }
                name.into_bytes()
            }
        ),
    ]
    .prop_filter("no name", |name| !matches!(name.as_slice(), b"." | b".." | b""))
}

#[derive(Clone, Debug)]
enum Node {
    File(usize),
    Directory(Vec<(Vec<u8>, Node)>),
    Symlink(Vec<Vec<u8>>),
    Hard(usize),
    Fifo,
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        4 => prop::sample::select(&[0, 1, 2048, 4095, 4096, 9000][..]).prop_map(Node::File),
        1 => prop::collection::vec(name(), 1..12).prop_map(Node::Symlink),
        1 => any::<prop::sample::Index>().prop_map(|index| Node::Hard(index.index(1 << 16))),
        1 => Just(Node::Fifo),
    ];
    leaf.prop_recursive(6, 120, 30, |inner| {
        prop::collection::vec((name(), inner), 0..30).prop_map(Node::Directory)
    })
}

fn make(dir: &Dir, path: &[u8], node: &Node, files: &mut Vec<Vec<u8>>) {
    match node {
        Node::File(len) => {
            dir.file(path, &vec![path.len() as u8; *len]);
            files.push(path.to_vec());
        }
        Node::Directory(inside) => {
            dir.directory(path);
            let mut names = std::collections::BTreeSet::new();
            for (name, node) in inside {
                let path = [path, b"/", name].concat();
                if names.insert(name) && path.len() < 2000 {
                    make(dir, &path, node, files);
                }
            }
        }
        Node::Symlink(names) => dir.link(path, &names.join(&b'/')[..names.join(&b'/').len().min(4095)]),
        Node::Hard(index) if files.is_empty() => dir.file(path, &[*index as u8]),
        Node::Hard(index) => {
            std::fs::hard_link(dir.at(&files[index % files.len()]), dir.at(path)).unwrap();
        }
        Node::Fifo => {
            rustix::fs::mknodat(
                rustix::fs::CWD,
                dir.at(path),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o640),
                0,
            )
            .unwrap();
        }
    }
}

fn tree() -> impl Strategy<Value = Node> {
    prop::collection::vec((name(), node()), 0..30).prop_map(Node::Directory)
}

fn made(node: &Node) -> Dir {
    let dir = Dir::quick();
    make(&dir, b".", node, &mut Vec::new());
    dir
}

/// Tells some random trees: the same ones every time.
pub(super) fn some(count: usize, mut each: impl FnMut(&Dir)) {
    let mut runner = TestRunner::deterministic();
    for _ in 0..count {
        each(&made(&tree().new_tree(&mut runner).unwrap().current()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_tree_is_there_as_it_is(node in tree()) {
        let dir = made(&node);
        let disk = dir.disk(&Options::default());
        let (plain, joliet) = parse::parse(disk.as_ref());
        compare(&dir, &disk, &plain);
        let told = plain.files.values().filter(|f| matches!(f.mode >> 12, 0o10 | 0o04)).count();
        prop_assert_eq!(joliet.unwrap().files.len(), told);
    }
}
