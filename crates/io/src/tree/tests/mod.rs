mod changed;
mod found;
mod hostile;

use super::*;
use chart::{Backing, Family, Source, Wait};
use std::fs;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), bytes).unwrap();
    }

    fn tree(&self) -> Arc<Tree> {
        Arc::new(Tree::of(self.0.path(), &Options::default()).unwrap())
    }
}

/// All regular files of a tree, each at the next multiple of 1000.
fn laid_out(tree: &Arc<Tree>) -> Arc<Files> {
    let mut files = tree.files();
    for id in tree.nodes().filter(|&id| tree.node(id).kind == Kind::File) {
        files.file(files.end().next_multiple_of(1000), id).unwrap();
    }
    let len = files.end() + 100;
    files.build(len).unwrap()
}

fn read(files: &Files, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut buf = vec![0xa5; len];
    files.read_at(offset, &mut buf, Wait::Allowed)?;
    Ok(buf)
}

fn names(tree: &Tree) -> Vec<String> {
    tree.nodes().map(|id| tree.path(id).display().to_string()).collect()
}

#[test]
fn files_are_read_where_they_were_put() {
    let dir = Dir::new();
    dir.file("a", &[1; 1500]);
    dir.file("b", &[2; 10]);
    dir.file("empty", b"");
    dir.file("d/c", &[3; 1000]);
    let files = laid_out(&dir.tree());
    assert_eq!((files.count(), files.len()), (3, 4100));
    let all = read(&files, 0, 4100).unwrap();
    let wanted = [vec![1; 1500], vec![0; 500], vec![2; 10], vec![0; 990], vec![3; 1000], vec![0; 100]];
    assert_eq!(all, wanted.concat());
    let names = |at| files.member_at(at).map(|m| m.name);
    assert_eq!(names(1499), Some("a".into()));
    assert_eq!(names(1500), Some("b".into()));
    assert_eq!(names(3999), Some("d/c".into()));
    assert_eq!(names(4000), None);
    assert!(matches!(files.backing(), Backing::Family(family) if family.root() == dir.0.path()));
    testkit::contract::source_law(files.as_ref(), 1).unwrap();
}
