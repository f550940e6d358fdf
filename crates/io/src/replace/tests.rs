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

/// Makes a directory with a file `a` and a directory `d` with a file `b` in it.
fn fill(new: &Directory) {
    let write = |path: &str, text: &str| {
        let root = PathBuf::from(format!("/proc/self/fd/{}", new.fd().as_raw_fd()));
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), text).unwrap();
    };
    write("a", "new");
    write("d/b", "new");
}

#[test]
fn a_directory_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new");
    let dropped = Directory::create(&target, false).unwrap();
    fill(&dropped);
    // Removing it takes rights that it may not give its owner any more.
    let inner = folder.path().join(names(folder.path()).remove(0)).join("d");
    std::fs::set_permissions(&inner, std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
    drop(dropped);
    assert!(names(folder.path()).is_empty());
    let new = Directory::create(&target, false).unwrap();
    assert!(new.is_new());
    fill(&new);
    new.commit(true).unwrap();
    assert_eq!(names(folder.path()), ["new"]);
    assert_eq!(names(&target), ["a", "d"]);
    let e = Directory::create(&target, false).err().unwrap();
    assert_eq!((e.kind(), e.remedy()), (chart::Kind::Conflict, Some(Remedy::Replace)));
    // Somebody is faster.
    let target = folder.path().join("late");
    let late = Directory::create(&target, false).unwrap();
    std::fs::write(&target, "precious").unwrap();
    assert!(late.commit(false).is_err());
    assert_eq!(names(folder.path()), ["late", "new"]);
}

#[test]
fn a_directory_is_emptied_into_one_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("there");
    std::fs::create_dir(&target).unwrap();
    let new = Directory::create(&target, false).unwrap();
    assert!(!new.is_new());
    fill(&new);
    new.commit(false).unwrap();
    assert_eq!(names(&target), ["a", "d"]);
    // What is there is kept, unless something new has its name. A link is not followed.
    std::fs::write(target.join("d/kept"), "old").unwrap();
    std::fs::write(target.join("d/b"), "old").unwrap();
    std::fs::write(folder.path().join("outside"), "old").unwrap();
    std::fs::remove_file(target.join("a")).unwrap();
    std::os::unix::fs::symlink("../outside", target.join("a")).unwrap();
    let new = Directory::create(&target, true).unwrap();
    fill(&new);
    new.commit(false).unwrap();
    assert_eq!(
        (names(&target), names(&target.join("d"))),
        (vec!["a".into(), "d".into()], vec!["b".into(), "kept".into()])
    );
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(
        (read("there/a"), read("there/d/b"), read("outside")),
        ("new".into(), "new".into(), "old".into())
    );
    // A directory neither replaces a file nor the other way round.
    std::fs::remove_dir_all(target.join("d")).unwrap();
    std::os::unix::fs::symlink("..", target.join("d")).unwrap();
    let new = Directory::create(&target, true).unwrap();
    fill(&new);
    let e = new.commit(false).unwrap_err();
    assert!(e.to_string().contains("d is a directory"), "{e}");
    assert_eq!(names(&target), ["a", "d"]);
    // And then nothing is put there, whatever comes first.
    assert_eq!((std::fs::read_link(target.join("d")).unwrap(), read("outside")), ("..".into(), "old".into()));
    std::fs::write(target.join("a"), "untouched").unwrap();
    for _ in 0..10 {
        let new = Directory::create(&target, true).unwrap();
        fill(&new);
        (0..10).for_each(|i| rustix::fs::mkdirat(new.fd(), format!("x{i}"), Mode::RWXU).unwrap());
        new.commit(false).unwrap_err();
    }
    assert_eq!((names(&target), read("there/a")), (vec!["a".into(), "d".into()], "untouched".into()));
    assert!(Directory::create(target.join("a"), true).is_err());
}

#[test]
fn a_directory_that_is_deep_is_dropped_as_any_other() {
    // Deeper than paths go. Whether it is deeper than a process may have files open depends on the process.
    const DEPTH: usize = 900;
    let folder = tempfile::tempdir().unwrap();
    let new = Directory::create(folder.path().join("new"), false).unwrap();
    let mut at = rustix::fs::openat(new.fd(), ".", OFlags::RDONLY, Mode::empty()).unwrap();
    for depth in 0..DEPTH {
        // One has a name as those get that are moved, in the place where they go.
        let name = if depth == 0 { ".3" } else { "deep" };
        rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
        rustix::fs::mkdirat(&at, "beside", Mode::RWXU).unwrap();
        rustix::fs::symlinkat("..", &at, "link").unwrap();
        at = rustix::fs::openat(&at, name, OFlags::RDONLY, Mode::empty()).unwrap();
    }
    let file = rustix::fs::openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    drop((file, at));
    // This is what is done where it is.
    let [made] = &names(folder.path())[..] else { panic!("a directory with another name") };
    directory::flatten(&folder.path().join(made)).unwrap();
    assert!(names(&folder.path().join(made)).is_empty());
    drop(new);
    assert!(names(folder.path()).is_empty());
}
