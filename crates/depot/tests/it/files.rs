//! A history in files, over any disk: as somebody would keep one for an afternoon.

use chart::{Disk, Result, SetMode, Slice, Source, SourceId, To, Wait};
use depot::{Options, VersionId, Versions};
use io::file::{File, Options as Opened};
use std::sync::Arc;
use testkit::Rng;
use testkit::source::Memory;

fn scratch(dir: &std::path::Path, name: &str) -> Arc<dyn Source> {
    let options = Opened { writable: true, create_new: true, ..Opened::default() };
    Arc::new(File::open(dir.join(name), options).unwrap())
}

fn all(disk: &Disk) -> Vec<u8> {
    let mut all = vec![0; disk.len() as usize];
    disk.read_at(0, &mut all, Wait::Allowed).unwrap();
    all
}

#[test]
fn data_and_maps_in_files() {
    let dir = tempfile::tempdir().unwrap();
    let (data, maps) = (scratch(dir.path(), "data"), scratch(dir.path(), "maps"));
    let mut rng = Rng::new(3);
    let mut model = vec![0; 8 << 20];
    rng.fill(&mut model);
    let below: Arc<dyn Source> = Arc::new(Memory::of(model.clone()));
    let slice = Slice::new(SourceId(0), 0, below.len(), false).unwrap();
    let base = Disk::builder("base", Arc::new(slice)).source(Arc::clone(&below)).build().unwrap();
    let options = Options { maps: Some(maps), cache_bytes: 0, ..Options::default() };
    let versions = Versions::over(base, Arc::clone(&data), options).unwrap();
    let head = versions.head();
    assert!(all(&head) == model && data.is_empty());
    let mut kept = Vec::new();
    for _ in 0..10 {
        for _ in 0..20 {
            let (at, len) = rng.range(model.len() as u64, 100_000);
            let mut bytes = vec![0; len as usize];
            rng.fill(&mut bytes);
            head.write_at(at, &bytes, Wait::Allowed).unwrap();
            model[at as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        head.set(3 << 20, 1 << 20, To::Zero, SetMode { may_unmap: true, fast_only: true }).unwrap();
        model[3 << 20..4 << 20].fill(0);
        head.flush().unwrap();
        kept.push((versions.snapshot("kept").unwrap(), model.clone()));
    }
    for (id, model) in &kept {
        assert!(all(&versions.open(*id).unwrap()) == *model);
    }
    assert_eq!(versions.roll_back(kept[2].0).unwrap(), versions.list().last().unwrap().id);
    assert!(all(&head) == kept[2].1);
    // Deleted versions make room: data is written where theirs was.
    let len = data.len();
    let ids: Vec<VersionId> = versions.list().iter().map(|version| version.id).collect();
    ids.into_iter().for_each(|id| versions.delete(id).unwrap());
    head.write_at(0, &vec![9; 2 << 20], Wait::Allowed).unwrap();
    assert_eq!(data.len(), len);
    let mut below_now = vec![0; below.len() as usize];
    below.read_at(0, &mut below_now, Wait::Allowed).unwrap();
    assert!(below_now[..1 << 20] != all(&head)[..1 << 20]);
    versions.audit().unwrap();
}

#[test]
fn the_list_tells_the_family() -> Result<()> {
    let options = Options { interval: 4096, ..Options::default() };
    let versions = Versions::new(1 << 20, Arc::new(Memory::new(0)), options)?;
    assert!(versions.list().is_empty());
    let first = versions.snapshot("first")?;
    let second = versions.snapshot("second")?;
    let branch = versions.branch(first, "aside")?;
    branch.disk().resize(5000)?;
    let third = branch.snapshot("third")?;
    let list = versions.list();
    let told: Vec<_> = list.iter().map(|v| (v.id, v.name.as_str(), v.parent, v.next, v.len)).collect();
    let wanted = [
        (first, "first", None, Some(second), 1 << 20),
        (second, "second", Some(first), Some(third), 1 << 20),
        (third, "third", Some(first), None, 5000),
    ];
    assert_eq!(told, wanted);
    assert!(list.is_sorted_by_key(|v| v.number) && list.iter().all(|v| v.number <= versions.current()));
    assert_eq!(versions.version(third)?, list[2]);
    assert_eq!(third.to_string().parse::<VersionId>()?, third);
    assert_eq!((branch.name()?, branch.parent()?), ("aside".into(), Some(third)));
    assert_eq!(versions.branches().len(), 2);
    // The first is kept for the sake of the two that came from it, but it is no version any more.
    versions.delete(first)?;
    assert_eq!(versions.list().iter().map(|v| v.parent).collect::<Vec<_>>(), [None, None]);
    let unknown = versions.open(first).map(drop).unwrap_err();
    assert!(unknown.to_string().contains("was deleted"), "{unknown}");
    let other = Versions::new(1 << 20, Arc::new(Memory::new(0)), Options::default())?.snapshot("other")?;
    let unknown = versions.open(other).map(drop).unwrap_err();
    assert!(unknown.to_string().contains("has no version"), "{unknown}");
    assert_eq!(versions.main().delete().unwrap_err().kind(), chart::Kind::Invalid);
    branch.delete()
}

#[test]
fn what_makes_no_sense_is_refused() {
    let memory = || Arc::new(Memory::new(0));
    for interval in [0, 256, 3000, 4 << 20] {
        let options = Options { interval, ..Options::default() };
        assert!(Versions::new(1 << 20, memory(), options).is_err());
    }
    assert!("12".parse::<VersionId>().is_err() && "+123456789abcdef".parse::<VersionId>().is_err());
    let options = Options { interval: 512, ..Options::default() };
    assert!(Versions::new(u64::MAX, memory(), options.clone()).is_err());
    let versions = Versions::new(0, memory(), options).unwrap();
    assert!(versions.head().is_empty());
    let too_long = versions.head().resize(u64::MAX).unwrap_err();
    assert_eq!(too_long.kind(), chart::Kind::Unsupported);
    assert!(versions.head().is_empty());
    let first = versions.snapshot("nothing").unwrap();
    versions.head().resize(1 << 40).unwrap();
    let second = versions.snapshot("a lot of nothing").unwrap();
    let mut told = 0;
    versions
        .diff(first, second, |range| {
            told += range.end - range.start;
            Ok(())
        })
        .unwrap();
    assert_eq!(told, 1 << 40);
}
