use super::*;

/// Names of all that is in a directory, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Where files may be without a name, and where they may not.
const WAYS: [fn(&Path) -> Option<File>; 2] = [nameless, |_| None];

#[test]
fn it_is_there_whole_or_not_at_all() {
    for way in WAYS {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new");
        drop(Replacement::begin(target.clone(), false, way).unwrap());
        assert!(names(folder.path()).is_empty());
        Replacement::begin(target.clone(), false, way).unwrap().write_whole(b"first").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"first");
        assert!(Replacement::begin(target.clone(), false, way).is_err());
        Replacement::begin(target.clone(), true, way).unwrap().write_whole(b"second").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"second");
        assert_eq!(names(folder.path()), ["new"]);
    }
}

#[test]
fn what_others_made_meanwhile_is_not_replaced() {
    for way in WAYS {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new");
        let late = Replacement::begin(target.clone(), false, way).unwrap();
        std::fs::write(&target, "precious").unwrap();
        let e = late.write_whole(b"late").unwrap_err();
        assert_eq!(e.kind(), chart::Kind::Conflict, "{e}");
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
        assert_eq!(names(folder.path()), ["new"]);
    }
}

#[test]
fn errors_name_the_target() {
    for way in WAYS {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new");
        let e = Replacement::begin(target.clone(), false, way).unwrap().file().unwrap().set_len(u64::MAX);
        assert_eq!(e.unwrap_err().path(), Some(target.as_path()));
    }
}
