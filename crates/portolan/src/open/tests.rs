use super::*;
use chart::{Kind, Remedy, Wait};
use std::process::Command;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// Runs qemu-img here, with `args` split at blanks.
    fn qemu_img(&self, args: &str) {
        let done =
            Command::new("qemu-img").args(args.split(' ')).current_dir(self.0.path()).output().unwrap();
        assert!(done.status.success(), "qemu-img {args}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

fn raw(path: &str) -> Spec {
    Spec { format: Some("raw".into()), ..Spec::file(path) }
}

fn writing() -> Options {
    Options { writable: true, ..Options::default() }
}

fn kind(result: Result<Opened>) -> Kind {
    result.err().expect("it was opened").kind()
}

fn first_bytes(disk: &Disk) -> Vec<u8> {
    let mut buf = vec![0; 4];
    disk.read_at(0, &mut buf, Wait::Allowed).unwrap();
    buf
}

#[test]
fn raw_is_read_by_probe_and_written_only_when_said() {
    let dir = Dir::new();
    let path = dir.file("disk", b"abcdefgh");
    let opened = open(&Spec::file(&path), &Options::default()).unwrap();
    assert_eq!((opened.image.format, first_bytes(&opened.disk)), (Format::Raw, b"abcd".to_vec()));
    drop(opened);
    assert_eq!(kind(open(&Spec::file(&path), &writing())), Kind::Invalid);
    let opened = open(&raw(&path), &writing()).unwrap();
    opened.disk.write_at(0, b"ABCD", Wait::Allowed).unwrap();
    opened.close().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"ABCDefgh");
}

#[test]
fn foreign_formats_are_named_not_taken_for_raw() {
    let dir = Dir::new();
    let path = dir.file("disk.vmdk", b"KDMV....");
    let e = open(&Spec::file(&path), &Options::default()).err().unwrap();
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.to_string().contains("VMDK"), "{e}");
    open(&raw(&path), &Options::default()).unwrap();
}

#[test]
fn a_container_of_ciphertext_is_no_raw_disk_unless_that_is_said() {
    let dir = Dir::new();
    let mut bytes = vec![0; 4096];
    bytes[..6].copy_from_slice(b"LUKS\xba\xbe");
    let path = dir.file("disk.img", &bytes);
    let e = open(&Spec::file(&path), &Options::default()).err().unwrap();
    assert_eq!((e.kind(), e.remedy()), (Kind::Unsupported, Some(Remedy::NameRaw)));
    assert!(e.to_string().contains("LUKS"), "{e}");
    open(&raw(&path), &writing()).unwrap();
}

#[test]
fn what_is_named_as_a_chart_is_never_taken_for_raw() {
    let dir = Dir::new();
    for (name, bytes) in [
        ("cut.chart", &b"PORTOL"[..]),
        ("damaged.chart", b"PORTOLAN, and more"),
        ("empty.chart", b""),
        ("lacking.json", br#"{"len": 512, "portolan_chart": 1}"#),
        ("broken.json", br#"{"portolan_chart": 1,"#),
        ("other.json", b"[1, 2]"),
    ] {
        let path = dir.file(name, bytes);
        let e = open(&Spec::file(&path), &Options::default()).err().unwrap();
        assert_eq!((e.kind(), e.remedy()), (Kind::Corrupt, Some(Remedy::ChartAgain)), "{name}: {e}");
        open(&raw(&path), &Options::default()).unwrap();
    }
    // Edited, so that its beginning does not say it any more.
    let edited = br#"{"len": 512, "portolan_chart": 1, "sources": [], "extents": []}"#;
    let opened = open(&Spec::file(dir.file("edited.json", edited)), &Options::default()).unwrap();
    assert_eq!((opened.image.format, opened.disk.len()), (Format::Chart, 512));
}

#[test]
fn one_file_is_one_disk_and_has_one_writer() {
    let dir = Dir::new();
    let path = dir.file("disk", &[0; 4096]);
    let link = dir.path("link");
    std::fs::hard_link(&path, &link).unwrap();

    let a = open(&raw(&path), &Options::default()).unwrap();
    let b = open(&Spec::file(&link), &Options::default()).unwrap();
    assert!(Arc::ptr_eq(&a.disk, &b.disk));
    assert_eq!(kind(open(&raw(&path), &writing())), Kind::Conflict);
    drop((a, b));

    let writer = open(&raw(&path), &writing()).unwrap();
    assert_eq!(kind(open(&raw(&link), &writing())), Kind::Conflict);
    let reader = open(&Spec::file(&link), &Options::default()).unwrap();
    writer.disk.write_at(0, b"seen", Wait::Allowed).unwrap();
    assert_eq!(first_bytes(&reader.disk), b"seen");
    assert_eq!(reader.disk.write_at(0, b"x", Wait::Allowed).unwrap_err().kind(), Kind::ReadOnly);
    writer.disk.resize(8192).unwrap();
    assert_eq!(reader.disk.len(), 8192);

    let mut window = raw(&path);
    window.options.insert("offset".into(), "512".into());
    assert_eq!(kind(open(&window, &Options::default())), Kind::Conflict);
}

/// What a disk stands on stays as it is, whoever comes first.
#[test]
fn what_is_written_is_nothing_that_another_disk_stands_on() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.qemu_img("create -q -f qcow2 base.qcow2 1M");
    dir.qemu_img("create -q -f qcow2 -F qcow2 -b base.qcow2 mid.qcow2");
    dir.qemu_img("create -q -f qcow2 -F qcow2 -b mid.qcow2 top.qcow2");
    let [base, mid, top] = ["base", "mid", "top"].map(|name| Spec::file(dir.path(&format!("{name}.qcow2"))));
    let refused = |first: (&Spec, Options), second: (&Spec, Options)| {
        let held = open(first.0, &first.1).unwrap();
        let e = open(second.0, &second.1).err().expect("both are open");
        drop(held);
        assert_eq!(e.kind(), Kind::Conflict);
        e.to_string()
    };
    for (below, above) in [(&base, &mid), (&mid, &top)] {
        for reading in [Options::default(), writing()] {
            let said = [
                refused((below, writing()), (above, reading.clone())),
                refused((above, reading), (below, writing())),
            ];
            for said in said {
                let below = below.location.to_string();
                let why = format!("{below}: cannot be written while {} stands on it", above.location);
                assert!(said.contains(&why), "{said}");
            }
        }
    }
    // Who is below is only read by both.
    let all = [(&base, Options::default()), (&top, writing()), (&mid, Options::default())];
    let opened: Vec<_> = all.iter().map(|(spec, options)| open(spec, options).unwrap()).collect();
    drop(opened);
    // What lies in a disk stands on it too. (There is nothing in this one: it is refused before that is looked for.)
    let path = dir.file("disk", &[0; 4096]);
    let inside = Spec::parse(format!("{path}:/x")).unwrap();
    let held = open(&raw(&path), &writing()).unwrap();
    let e = open(&inside, &Options::default()).err().unwrap();
    assert!(e.to_string().contains(&format!("cannot be written while {inside} stands on it")), "{e}");
    drop(held);
}

#[test]
fn of_many_threads_one_writes_and_all_that_read_share() {
    let dir = Dir::new();
    let path = dir.file("disk", &[0; 4096]);
    let together = |options: Options| -> Vec<Result<Opened>> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&raw(&path), &options))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        })
    };
    let writers = together(writing());
    assert_eq!(writers.iter().filter(|w| w.is_ok()).count(), 1);
    drop(writers);
    let readers: Vec<_> = together(Options::default()).into_iter().map(|r| r.unwrap()).collect();
    assert!(readers.iter().all(|r| Arc::ptr_eq(&r.disk, &readers[0].disk)));
}

#[test]
fn windows_and_parts() {
    let dir = Dir::new();
    let path = dir.file("disk.001", b"abcdefgh");
    dir.file("disk.002", b"ijkl");
    let with = |pairs: &[(&str, &str)]| Spec {
        options: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..raw(&path)
    };
    let len = |spec: &Spec| open(spec, &Options::default()).map(|o| o.disk.len());
    assert_eq!(len(&with(&[("offset", "2"), ("size", "3")])).unwrap(), 3);
    assert_eq!(len(&with(&[("parts", "auto")])).unwrap(), 12);
    assert_eq!(len(&with(&[("parts", &dir.path("disk.002"))])).unwrap(), 12);
    assert!(len(&with(&[("offset", "9")])).is_err());
    assert!(len(&with(&[("parts", &path)])).is_err());
    assert!(len(&with(&[("odd", "1")])).is_err());
    let unnumbered = raw(&dir.file("disk.img", b"abcd"));
    let unnumbered = Spec { options: with(&[("parts", "auto")]).options, ..unnumbered };
    assert!(len(&unnumbered).unwrap_err().to_string().contains("numbered on"));
}

#[test]
fn what_is_not_inside_is_refused_by_name() {
    let dir = Dir::new();
    let path = dir.file("disk", &[0; 512]);
    for (suffix, word, kind) in [
        ("#1", "partition table", Kind::NotFound),
        (":/etc/fstab", "file system", Kind::Unsupported),
        ("@v", "versions", Kind::Unsupported),
    ] {
        let e = open(&Spec::parse(format!("{path}{suffix}")).unwrap(), &Options::default()).err().unwrap();
        assert_eq!(e.kind(), kind);
        assert!(e.to_string().contains(word), "{e}");
    }
}

#[test]
fn chains_are_followed_beside_the_image() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.file("base.raw", &[7; 1 << 20]);
    dir.qemu_img("create -q -f qcow2 -F raw -b base.raw mid.qcow2");
    dir.qemu_img("create -q -f qcow2 -F qcow2 -b mid.qcow2 top.qcow2");
    let opened = open(&Spec::file(dir.path("top.qcow2")), &Options::default()).unwrap();
    let formats: Vec<_> = opened.image.chain().map(|i| i.format).collect();
    assert_eq!(formats, [Format::Qcow2, Format::Qcow2, Format::Raw]);
    assert_eq!(first_bytes(&opened.disk), [7; 4]);

    // The same base under two overlays is one disk.
    let mid = open(&Spec::file(dir.path("mid.qcow2")), &Options::default()).unwrap();
    assert!(Arc::ptr_eq(opened.image.below.as_ref().unwrap(), &mid.image));
    drop((opened, mid));

    let alone = Options { alone: true, ..Options::default() };
    assert!(open(&Spec::file(dir.path("top.qcow2")), &alone).unwrap().image.below.is_none());
}

#[test]
fn loops_and_deep_chains_are_refused_with_the_chain() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.qemu_img("create -q -f qcow2 a.qcow2 1M");
    dir.qemu_img("create -q -f qcow2 -F qcow2 -b a.qcow2 b.qcow2");
    dir.qemu_img("rebase -u -F qcow2 -b b.qcow2 a.qcow2");
    let e = open(&Spec::file(dir.path("b.qcow2")), &Options::default()).err().unwrap();
    assert_eq!(e.kind(), Kind::Corrupt);
    assert!(e.to_string().contains("loops") && e.to_string().contains("->"), "{e}");

    dir.qemu_img("create -q -f qcow2 0.qcow2 1M");
    for i in 1..=MAX_CHAIN {
        dir.qemu_img(&format!("create -q -u -f qcow2 -F qcow2 -b {}.qcow2 {i}.qcow2 1M", i - 1));
    }
    let last = |i: usize| open(&Spec::file(dir.path(&format!("{i}.qcow2"))), &Options::default());
    assert_eq!(last(MAX_CHAIN - 1).unwrap().image.chain().count(), MAX_CHAIN);
    assert_eq!(kind(last(MAX_CHAIN)), Kind::Unsupported);
}

#[test]
fn a_format_that_nobody_stated_is_guessed_only_where_that_opens_nothing() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.qemu_img("create -q -f qcow2 base.qcow2 1M");
    dir.qemu_img("create -q -f qcow2 -F qcow2 -b base.qcow2 mid.qcow2");
    for (base, ok) in [("base.qcow2", true), ("mid.qcow2", false)] {
        dir.qemu_img(&format!("create -q -u -f qcow2 -F qcow2 -b {base} top.qcow2 1M"));
        dir.qemu_img(&format!("rebase -u -b {base} -F raw top.qcow2"));
        strip_backing_format(&dir.path("top.qcow2"));
        let spec = Spec::file(dir.path("top.qcow2"));
        let opened = open(&spec, &Options::default());
        assert_eq!(opened.is_ok(), ok, "{base}: {:?}", opened.err());
        open(&spec, &Options { guess: true, ..Options::default() }).unwrap();
    }
}

/// Makes the backing format extension one that is not known. qemu-img no longer makes images without it.
fn strip_backing_format(path: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(4).position(|w| w == 0xE279_2ACA_u32.to_be_bytes()).expect("a backing format");
    bytes[at..at + 4].copy_from_slice(&0x0DD0_0DD0_u32.to_be_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn qemu_and_we_refuse_each_other() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let path = dir.file("disk", &[0; 1 << 16]);
    let qemu_writes = || {
        let write = ["-f", "raw", "-c", "write 0 512", &path];
        Command::new("qemu-io").args(write).output().unwrap().status.success()
    };
    let reader = open(&raw(&path), &Options::default()).unwrap();
    assert!(!qemu_writes());
    drop(reader);
    let unlocked = open(&raw(&path), &Options { unlocked: true, ..Options::default() }).unwrap();
    assert!(qemu_writes());
    drop(unlocked);
    let writer = open(&raw(&path), &writing()).unwrap();
    assert!(!qemu_writes());
    drop(writer);
    assert!(qemu_writes());
}
