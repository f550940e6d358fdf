//! What a walk finds.

use super::*;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

#[test]
fn nodes_are_by_depth_and_then_by_name() {
    let dir = Dir::new();
    for name in ["b/z", "b/y/deep", "a", "c/x", "B"] {
        dir.file(name, name.as_bytes());
    }
    symlink("../elsewhere", dir.at("b/link")).unwrap();
    fs::hard_link(dir.at("a"), dir.at("c/a again")).unwrap();
    let tree = dir.tree();
    let wanted = ["", "B", "a", "b", "c", "b/link", "b/y", "b/z", "c/a again", "c/x", "b/y/deep"];
    assert_eq!(names(&tree), wanted);
    let of = |name: &str| tree.nodes().find(|&id| tree.path(id) == Path::new(name)).unwrap();
    let children: Vec<_> = tree.children(of("b")).map(|id| tree.name(id).to_vec()).collect();
    assert_eq!(children, [b"link".to_vec(), b"y".to_vec(), b"z".to_vec()]);
    assert_eq!((tree.children(of("a")).len(), tree.children(of("b/link")).len()), (0, 0));
    assert_eq!(tree.target(of("b/link")), b"../elsewhere");
    assert_eq!((tree.node(of("b/link")).kind, tree.node(of("b/link")).len), (Kind::Symlink, 12));
    let (a, again) = (tree.node(of("a")), tree.node(of("c/a again")));
    assert_eq!((a.device, a.inode, a.links), (again.device, again.inode, 2));
    assert_eq!((tree.parent(of("b/y/deep")), tree.parent(of("c/x"))), (of("b/y"), of("c")));
    assert_eq!((tree.parent(of("a")), tree.parent(tree.root())), (tree.root(), tree.root()));
}

#[test]
fn attributes_are_those_that_the_system_tells() {
    let dir = Dir::new();
    dir.file("file", &[7; 5000]);
    fs::set_permissions(dir.at("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    let old = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH - std::time::Duration::new(5, 250));
    fs::File::options().write(true).open(dir.at("file")).unwrap().set_times(old).unwrap();
    let tree = dir.tree();
    for id in tree.nodes() {
        let (node, meta) = (tree.node(id), fs::symlink_metadata(dir.at("").join(tree.path(id))).unwrap());
        assert_eq!((node.mode, node.uid, node.gid), (meta.mode() & 0o7777, meta.uid(), meta.gid()));
        assert_eq!((node.device, node.inode, u64::from(node.links)), (meta.dev(), meta.ino(), meta.nlink()));
        assert_eq!((node.modified.seconds, node.modified.nanos), (meta.mtime(), meta.mtime_nsec() as u32));
        assert_eq!((node.changed.seconds, node.changed.nanos), (meta.ctime(), meta.ctime_nsec() as u32));
        let born = meta.created().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        let noted = node.born.map(|t| std::time::Duration::new(t.seconds as u64, t.nanos));
        assert_eq!(noted, born);
    }
    let file = tree.node(NodeId(1));
    assert_eq!((file.len, file.modified), (5000, Time { seconds: -6, nanos: 999_999_750 }));
}

#[test]
fn all_kinds_are_found_and_none_is_opened() {
    let dir = Dir::new();
    let fifo = Command::new("mkfifo").arg(dir.at("fifo")).status().unwrap();
    assert!(fifo.success());
    let _listener = std::os::unix::net::UnixListener::bind(dir.at("socket")).unwrap();
    symlink("/dev/null", dir.at("link")).unwrap();
    let tree = dir.tree();
    let kinds: Vec<_> = tree.nodes().map(|id| tree.node(id).kind).collect();
    assert_eq!(kinds, [Kind::Directory, Kind::Fifo, Kind::Symlink, Kind::Socket]);
    let null = Tree::of(Path::new("/dev"), &Options { skip_unreadable: true, ..Options::default() }).unwrap();
    let id = null.children(null.root()).find(|&id| null.name(id) == b"null").unwrap();
    assert_eq!((null.node(id).kind, null.node(id).special), (Kind::CharacterDevice, (1, 3)));
    assert_eq!(null.node(id).len, 0);
    let mut files = tree.files();
    assert_eq!(files.file(0, NodeId(1)).unwrap_err().kind(), chart::Kind::Invalid);
}

#[test]
fn names_are_bytes() {
    let dir = Dir::new();
    let odd = [&b"\xff\xfe"[..], b"new\nline", b"\xc3\xa4", &[b'x'; 255]];
    for name in odd {
        fs::write(dir.0.path().join(as_path(name)), name).unwrap();
    }
    let tree = dir.tree();
    let mut found: Vec<_> = tree.children(tree.root()).map(|id| tree.name(id).to_vec()).collect();
    assert!(found.is_sorted());
    found.sort();
    let mut wanted = odd.map(<[u8]>::to_vec);
    wanted.sort();
    assert_eq!(found, wanted);
    let files = laid_out(&tree);
    for i in 0..files.count() {
        let member = files.member(i);
        let bytes = read(&files, member.start, member.len as usize).unwrap();
        assert_eq!(bytes, member.name.as_os_str().as_bytes());
    }
}

#[test]
fn symbolic_links_are_never_followed_but_for_the_root() {
    let dir = Dir::new();
    dir.file("real/file", b"x");
    symlink("..", dir.at("real/loop")).unwrap();
    symlink("/", dir.at("real/all")).unwrap();
    symlink("real", dir.at("root")).unwrap();
    let tree = Tree::of(&dir.at("root"), &Options::default()).unwrap();
    assert_eq!(names(&tree), ["", "all", "file", "loop"]);
    let e = Tree::of(&dir.at("real/file"), &Options::default()).err().unwrap();
    assert!(e.to_string().contains("real/file"), "{e}");
    let e = Tree::of(&dir.at("absent"), &Options::default()).err().unwrap();
    assert_eq!(e.kind(), chart::Kind::NotFound);
}

#[test]
fn a_path_may_be_longer_than_one_call_takes() {
    let dir = Dir::new();
    let name = "d".repeat(200);
    let mut at = open_root(dir.0.path()).unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(&at, name.as_str(), 0o755.into()).unwrap();
        at = rustix::fs::openat(&at, name.as_str(), OFlags::PATH, Mode::empty()).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = rustix::fs::openat(&at, "deep", flags, 0o644.into()).unwrap();
    rustix::io::write(&file, b"down here").unwrap();
    drop((at, file));
    let tree = dir.tree();
    assert_eq!(tree.len(), 42);
    let files = laid_out(&tree);
    assert!(files.member(0).name.as_os_str().len() > 8000);
    assert_eq!(read(&files, 0, 9).unwrap(), b"down here");
    // As it is done where the kernel does not know openat2.
    let path = files.member(0).name;
    let path = path.as_os_str().as_bytes();
    beneath::in_parts(tree.root_fd(), path, OFlags::RDONLY, 1).unwrap();
    beneath::in_parts(tree.root_fd(), path, OFlags::RDONLY, 500).unwrap();
}

#[test]
fn without_openat2_nothing_is_opened_that_is_not_beneath() {
    let dir = Dir::new();
    dir.file("a/b/c", b"x");
    symlink("a", dir.at("link")).unwrap();
    symlink("b/c", dir.at("a/c")).unwrap();
    let root = open_root(dir.0.path()).unwrap();
    for most in [1, 4096] {
        let open = |path: &str| {
            beneath::in_parts(root.as_fd(), path.as_bytes(), OFlags::RDONLY | OFlags::NOFOLLOW, most).is_ok()
        };
        assert!(open("a/b/c") && open("a"), "{most}");
        for path in
            ["link/b/c", "a/c", "../x", "a/../../x", "/etc/passwd", "a/b/../../../etc", "link", "nul\0"]
        {
            assert!(!open(path), "{most}: {path}");
        }
    }
}

#[test]
fn a_walk_ends_a_tick_after_what_it_found_was_changed() {
    let dir = Dir::new();
    for i in 0..100 {
        dir.file("changing", &[i; 10]);
        let tree = dir.tree();
        // The clock that a change from here on would be noted by.
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        let changed = tree.node(NodeId(1)).changed;
        assert!((changed.seconds, i64::from(changed.nanos)) < (clock.tv_sec, clock.tv_nsec));
    }
}

#[test]
fn limits_have_names() {
    let dir = Dir::new();
    for i in 0..20 {
        dir.file(&format!("{}/{i}", i % 3), b"");
    }
    let walk = |most_nodes| Tree::of(dir.0.path(), &Options { most_nodes, ..Options::default() });
    assert_eq!(walk(24).unwrap().len(), 24);
    let e = walk(23).err().unwrap();
    assert_eq!(e.kind(), chart::Kind::Unsupported);
    assert!(e.to_string().contains("more than 23 files and directories"), "{e}");
}

#[test]
fn many_directories_are_walked_in_their_order_by_many_threads() {
    let dir = Dir::new();
    for i in 0..300 {
        dir.file(&format!("d{:03}/e{}/file{i}", i % 150, i % 7), b"x");
        if i % 5 == 0 {
            symlink(format!("to {i}"), dir.at(&format!("d{:03}/link", i % 150)))
                .or_else(|e| if e.kind() == std::io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })
                .unwrap();
        }
    }
    let tree = dir.tree();
    for id in tree.nodes() {
        let path = dir.at("").join(tree.path(id));
        assert_eq!(tree.node(id).inode, fs::symlink_metadata(&path).unwrap().ino());
        if tree.node(id).kind == Kind::Symlink {
            assert_eq!(tree.target(id), fs::read_link(&path).unwrap().as_os_str().as_bytes());
        }
        let children: Vec<_> = tree.children(id).collect();
        assert!(children.windows(2).all(|w| w[0].0 + 1 == w[1].0 && tree.name(w[0]) < tree.name(w[1])));
        assert!(children.iter().all(|&child| tree.parent(child) == id && child > id));
    }
    let count = Command::new("find").arg(dir.0.path()).output().unwrap().stdout;
    assert_eq!(tree.len(), count.iter().filter(|&&b| b == b'\n').count());
}

#[test]
fn a_directory_that_changes_meanwhile_is_no_catastrophe() {
    let dir = Dir::new();
    for i in 0..200 {
        dir.file(&format!("d{i}/e/file"), b"x");
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in (0..200).cycle() {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let (from, to) = (dir.at(&format!("d{i}")), dir.at("moved"));
                fs::rename(&from, &to).unwrap();
                symlink("/", &from).unwrap();
                fs::remove_file(&from).unwrap();
                fs::rename(&to, &from).unwrap();
            }
        });
        for _ in 0..30 {
            let walked = Tree::of(dir.0.path(), &Options { skip_unreadable: true, ..Options::default() });
            assert!(walked.unwrap().len() < 700);
            let _ = Tree::of(dir.0.path(), &Options::default());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// Runs a test as somebody who is not root: in a process of its own, since threads share who they are.
pub(super) fn as_nobody(test: &str, dir: &Path) {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    // Where the build lies others may not look: the program is handed over open.
    let program = fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    rustix::io::fcntl_setfd(&program, rustix::io::FdFlags::empty()).unwrap();
    let output = Command::new(path)
        .args(["--exact", test, "--nocapture"])
        .env("TREE_AS_NOBODY", dir)
        .uid(NOBODY)
        .current_dir("/")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
}

#[test]
fn what_may_not_be_read_is_named_or_skipped() {
    if let Some(dir) = std::env::var_os("TREE_AS_NOBODY") {
        let dir = Path::new(&dir);
        let e = Tree::of(dir, &Options::default()).err().unwrap();
        assert_eq!(e.kind(), chart::Kind::Denied, "{e}");
        assert!(e.to_string().contains("/secret: ") && e.to_string().contains("shut"), "{e}");
        let tree = Tree::of(dir, &Options { skip_unreadable: true, ..Options::default() }).unwrap();
        assert_eq!(names(&tree), ["", "open", "shut"]);
        let skipped: Vec<_> = tree.skipped().iter().map(|s| s.path.display().to_string()).collect();
        // The file is found where its directory is listed, the directory where it is entered.
        assert_eq!(skipped, ["secret", "shut"]);
        assert!(
            Tree::of(&dir.join("shut"), &Options { skip_unreadable: true, ..Options::default() }).is_err()
        );
        return;
    }
    if !testkit::peer::require(&["root"]) {
        return;
    }
    let dir = Dir::new();
    fs::set_permissions(dir.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir.file("open", b"x");
    dir.file("secret", b"x");
    dir.file("shut/inside", b"x");
    fs::set_permissions(dir.at("open"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(dir.at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(dir.at("shut"), fs::Permissions::from_mode(0o700)).unwrap();
    as_nobody("tree::tests::found::what_may_not_be_read_is_named_or_skipped", dir.0.path());
}

#[test]
fn what_is_mounted_below_is_entered_unless_that_is_not_wanted() {
    let (all, one) = (Options::default(), Options { one_file_system: true, ..Options::default() });
    // The one place where something is mounted on every Linux, and whose own directory holds little.
    let Some(mounted) = ["/dev/shm", "/dev/pts", "/dev/mqueue"].into_iter().find(|path| {
        let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
        device(Path::new(path)).is_some_and(|d| Some(d) != device(Path::new("/dev")))
    }) else {
        println!("SKIPPED: needs something mounted below /dev");
        return;
    };
    let below = |options: &Options| {
        let tree = Tree::of(Path::new("/dev"), &Options { skip_unreadable: true, ..*options }).unwrap();
        let mut children = tree.children(tree.root());
        let id = children.find(|&id| Path::new("/dev").join(tree.path(id)) == Path::new(mounted)).unwrap();
        (tree.node(id).kind, tree.children(id).len())
    };
    assert_eq!(below(&one), (Kind::Directory, 0));
    assert_eq!(below(&all), (Kind::Directory, fs::read_dir(mounted).unwrap().count()));
}

#[test]
fn no_content_is_read_before_it_is_asked_for() {
    const TEST: &str = "tree::tests::found::no_content_is_read_before_it_is_asked_for";
    if let Some(dir) = std::env::var_os("TREE_UNDER_STRACE") {
        let tree = Arc::new(Tree::of(Path::new(&dir), &Options::default()).unwrap());
        let files = laid_out(&tree);
        assert_eq!(files.count(), 3);
        let mut at = 0;
        while at < files.len() {
            at += files.data_at(at, u64::MAX).unwrap().len;
        }
        return;
    }
    if !testkit::peer::require(&["strace"]) {
        return;
    }
    let dir = Dir::new();
    dir.file("content-1", &[1; 9000]);
    dir.file("sub/content-2", &[2; 100]);
    let sparse = fs::File::create(dir.at("content-3")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    drop(sparse);
    let log = dir.0.path().with_extension("strace");
    let status = Command::new("strace")
        .args(["-f", "-y", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST])
        .env("TREE_UNDER_STRACE", dir.0.path())
        .status();
    let told = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    assert!(status.unwrap().success());
    let about: Vec<_> = told.lines().filter(|line| line.contains("content-")).collect();
    let calls = |name: &str| about.iter().filter(|line| line.contains(&format!(" {name}("))).count();
    assert!(calls("statx") >= 3, "{about:#?}");
    // Only what has holes is opened, and only to be asked where they are.
    for line in about {
        let call = line.split_once(' ').map_or("", |(_, call)| call.trim_start());
        let call = call.split_once('(').map_or("", |(name, _)| name);
        let asks = line.contains("content-3")
            && matches!(call, "openat2" | "open" | "statx" | "lseek" | "fstat" | "fcntl" | "close");
        let names = ["statx", "getdents64", "newfstatat"].contains(&call);
        assert!(asks || names, "{line}");
    }
}
