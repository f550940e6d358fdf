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

/// The mode of what is at `path`.
fn mode_at(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_new_file_is_nobody_elses_before_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new");
    let new = Replacement::begin(target, false, |_| None).unwrap();
    let [part] = names(folder.path()).try_into().unwrap();
    assert_eq!(mode_at(&folder.path().join(part)), 0o600);
    drop(new);
}

#[test]
fn a_new_file_has_the_rights_of_what_it_replaces_or_of_any_new_one() {
    for way in WAYS {
        let folder = tempfile::tempdir().unwrap();
        let [other, target] = ["other", "new"].map(|name| folder.path().join(name));
        rustix::fs::open(&other, OFlags::CREATE | OFlags::WRONLY, NEW).unwrap();
        let whole = |force| Replacement::begin(target.clone(), force, way).unwrap().write_whole(b"x");
        whole(false).unwrap();
        assert_eq!(mode_at(&target), mode_at(&other));
        for mode in [0o600, 0o640, 0o604, 0o666, 0o444] {
            set_mode(&target, mode);
            whole(true).unwrap();
            assert_eq!(mode_at(&target), mode);
        }
        // Its maker knows better.
        set_mode(&target, 0o666);
        let mut new = Replacement::begin(target.clone(), true, way).unwrap();
        rustix::fs::fchmod(new.file().unwrap().fd(), Mode::from_raw_mode(0o600)).unwrap();
        new.keep_rights();
        new.write_whole(b"x").unwrap();
        assert_eq!(mode_at(&target), 0o600);
    }
}

#[test]
fn who_gets_another_group_opens_it_to_neither() {
    for (mode, both) in
        [(0o600, 0o600), (0o640, 0o600), (0o604, 0o600), (0o664, 0o644), (0o666, 0o666), (0o444, 0o444)]
    {
        assert_eq!(rights::for_others(Mode::from_raw_mode(mode)).as_raw_mode(), both);
    }
}

/// Access control lists, of what is replaced and of the directory.
#[test]
fn a_new_file_opens_itself_to_nobody_else() {
    const READ_WRITE: u16 = 6;
    // A version; then for the owner, a user, the group, the mask and others: what, may do what, who.
    let list = |rights: u16| {
        let entries = [(1, READ_WRITE, !0), (2, rights, 12), (4, 0, !0), (16, rights, !0), (32, 0, !0_u32)];
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            list.extend([u16::to_le_bytes(tag), u16::to_le_bytes(rights)].concat());
            list.extend(id.to_le_bytes());
        }
        list
    };
    let access = "system.posix_acl_access";
    let has = |path: &Path| {
        let mut list = [0; 256];
        rustix::fs::getxattr(path, access, &mut list).ok().map(|len| list[..len].to_vec())
    };
    let set = |path: &Path, name: &str, rights| {
        rustix::fs::setxattr(path, name, &list(rights), rustix::fs::XattrFlags::empty()).is_ok()
    };
    for way in WAYS {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new");
        let whole = |force| Replacement::begin(target.clone(), force, way).unwrap().write_whole(b"x");
        std::fs::write(&target, "").unwrap();
        if !set(&target, access, 4) {
            println!("SKIPPED: needs access control lists");
            return;
        }
        whole(true).unwrap();
        assert_eq!(has(&target), Some(list(4)));
        // What a directory gives its new files is nothing for one that replaces another.
        std::fs::remove_file(&target).unwrap();
        std::fs::write(&target, "").unwrap();
        set_mode(&target, 0o640);
        assert!(set(folder.path(), "system.posix_acl_default", READ_WRITE));
        whole(true).unwrap();
        assert_eq!((has(&target), mode_at(&target)), (None, 0o640));
        std::fs::remove_file(&target).unwrap();
        whole(false).unwrap();
        let other = folder.path().join("other");
        rustix::fs::open(&other, OFlags::CREATE | OFlags::WRONLY, NEW).unwrap();
        assert!(has(&target).is_some());
        assert_eq!((has(&target), mode_at(&target)), (has(&other), mode_at(&other)));
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
