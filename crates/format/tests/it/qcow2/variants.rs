//! Every kind of image that qemu-img makes, read bit for bit as it reads them.

use super::*;

struct Variant {
    name: String,
    options: Vec<String>,
    size: u64,
    cluster: u64,
    compressed: bool,
    zeros: bool,
}

fn variant(options: &[&str], cluster: u64) -> Variant {
    let mut all: Vec<String> = options.iter().map(ToString::to_string).collect();
    all.push(format!("cluster_size={cluster}"));
    Variant {
        name: all.join(","),
        zeros: !options.contains(&"compat=0.10"),
        compressed: !options.iter().any(|o| o.starts_with("preallocation")),
        options: all,
        size: (40 * cluster).clamp(256 * KIB, 24 * MIB) + 5 * 512,
        cluster,
    }
}

fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for bits in 9..=21 {
        all.push(variant(&["compat=1.1"], 1 << bits));
        all.push(variant(&["compat=0.10"], 1 << bits));
        if bits % 3 == 0 {
            all.push(variant(&["compat=1.1", "compression_type=zstd"], 1 << bits));
        }
        if bits >= 14 {
            all.push(variant(&["compat=1.1", "extended_l2=on"], 1 << bits));
        }
    }
    for bits in [1, 2, 4, 8, 16, 32, 64] {
        all.push(variant(&[&format!("refcount_bits={bits}")], 4096));
        all.push(variant(&[&format!("refcount_bits={bits}"), "lazy_refcounts=on"], 65536));
    }
    all.push(variant(&["extended_l2=on", "compression_type=zstd"], 65536));
    for preallocation in ["metadata", "falloc", "full"] {
        all.push(variant(&[&format!("preallocation={preallocation}")], 65536));
        all.push(variant(&[&format!("preallocation={preallocation}"), "extended_l2=on"], 65536));
    }
    all
}

#[test]
fn every_variant_reads_as_qemu_reads_it() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (i, v) in variants().iter().enumerate() {
        let path = dir.path().join(format!("{i}.qcow2"));
        let options: Vec<&str> = v.options.iter().map(String::as_str).collect();
        create(&path, &options, v.size);
        let Variant { size, cluster, compressed, zeros, .. } = *v;
        let load = Workload { seed: i as u64, size, cluster, compressed, zeros, steps: 40 };
        qemu_io(&path, &load.commands());
        same_bytes(&path, &disk(&path).unwrap(), &converted(&path, None), &v.name);
        same_check(&path, &v.name);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn external_data_files() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (i, options) in [
        &["data_file_raw=off"][..],
        &["data_file_raw=on"],
        &["data_file_raw=off", "extended_l2=on"],
        &["data_file_raw=on", "extended_l2=on"],
        &["data_file_raw=off", "preallocation=metadata"],
    ]
    .iter()
    .enumerate()
    {
        let path = dir.path().join(format!("{i}.qcow2"));
        let data = format!("data_file={}", arg(&dir.path().join(format!("{i}.data"))));
        let mut all = options.to_vec();
        all.push(&data);
        let size = 3 * MIB + 1536;
        create(&path, &all, size);
        let load = Workload { seed: 9, size, cluster: 65536, compressed: false, zeros: true, steps: 30 };
        qemu_io(&path, &load.commands());
        let expected = converted(&path, None);
        let opened = disk(&path).unwrap();
        same_bytes(&path, &opened, &expected, &all.join(","));
        same_check(&path, &all.join(","));
        let info = image(&path, &Options::default()).unwrap().info().unwrap();
        assert_eq!(info.data_file_raw, options.contains(&"data_file_raw=on"));
        if info.data_file_raw {
            assert!(
                std::fs::read(dir.path().join(format!("{i}.data"))).unwrap()[..expected.len()] == expected
            );
        }
    }
}

#[test]
fn backing_files_shorter_longer_and_deep() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (i, (below, size)) in
        [(MIB, 3 * MIB), (3 * MIB, MIB + 512), (2 * MIB + 512, 2 * MIB + 512)].iter().enumerate()
    {
        for (j, extra) in
            [&[][..], &["extended_l2=on"], &["compat=0.10"], &["cluster_size=4096"]].iter().enumerate()
        {
            let (base, mid, top) = (format!("base{i}{j}"), format!("mid{i}{j}"), format!("top{i}{j}"));
            create(&at(&base), &["cluster_size=4096"], *below);
            let load =
                Workload { seed: 3, size: *below, cluster: 4096, compressed: true, zeros: true, steps: 60 };
            qemu_io(&at(&base), &load.commands());
            let backing = format!("backing_file={base},backing_fmt=qcow2");
            create(&at(&mid), &[&backing, "cluster_size=512"], *size);
            let backing = format!("backing_file={mid},backing_fmt=qcow2");
            let mut options = extra.to_vec();
            options.push(&backing);
            create(&at(&top), &options, *size);
            let zeros = !extra.contains(&"compat=0.10");
            let load = Workload { seed: 4, size: *size, cluster: 65536, compressed: true, zeros, steps: 12 };
            qemu_io(&at(&top), &load.commands());
            let opened = disk(&at(&top)).unwrap();
            assert_eq!(opened.depth(), 3);
            same_bytes(&at(&top), &opened, &converted(&at(&top), None), &top);
            same_check(&at(&top), &top);
            let info = image(&at(&top), &Options::default()).unwrap().info().unwrap();
            assert_eq!(info.backing_file.as_deref(), Some(mid.as_str()));
            assert_eq!(info.backing_format.as_deref(), Some("qcow2"));
        }
    }
}

#[test]
fn a_raw_backing_file() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (base, top) = (dir.path().join("base.raw"), dir.path().join("top.qcow2"));
    let mut bytes = vec![0; 300_032];
    Rng::new(1).fill(&mut bytes);
    std::fs::write(&base, &bytes).unwrap();
    create(&top, &["backing_file=base.raw", "backing_fmt=raw"], 400 * KIB);
    peer::qemu_io("qcow2", &top, &["write -P 5 100k 70k"]);
    same_bytes(&top, &disk(&top).unwrap(), &converted(&top, None), "raw backing");
}

#[test]
fn compressed_by_convert() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("a.raw");
    let mut bytes = vec![0; 5 * MIB as usize];
    let mut rng = Rng::new(5);
    for part in bytes.chunks_mut(40_000) {
        match rng.below(3) {
            0 => rng.fill(part),
            1 => part.iter_mut().enumerate().for_each(|(i, b)| *b = (i % 61) as u8),
            _ => {}
        }
    }
    std::fs::write(&raw, &bytes).unwrap();
    for compression in ["zlib", "zstd"] {
        for bits in [9, 12, 16, 21] {
            for extended in ["off", "on"] {
                if extended == "on" && bits < 14 {
                    continue;
                }
                let what = format!(
                    "compression_type={compression},cluster_size={},extended_l2={extended}",
                    1 << bits
                );
                let out = dir.path().join("a.qcow2");
                let args =
                    ["convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o", &what, arg(&raw), arg(&out)];
                peer::qemu_img(&args);
                same_bytes(&out, &disk(&out).unwrap(), &bytes, &what);
                same_check(&out, &what);
                std::fs::remove_file(&out).unwrap();
            }
        }
    }
}

#[test]
fn snapshots_are_listed_and_read() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (i, options) in
        [&["compat=1.1"][..], &["compat=0.10"], &["extended_l2=on"], &["cluster_size=512"]].iter().enumerate()
    {
        let path = dir.path().join(format!("{i}.qcow2"));
        let size = 2 * MIB;
        create(&path, options, size);
        let zeros = !options.contains(&"compat=0.10");
        for (seed, name) in [(1, "first"), (2, "second one"), (3, "2")] {
            let load = Workload { seed, size, cluster: 65536, compressed: seed == 1, zeros, steps: 10 };
            qemu_io(&path, &load.commands());
            peer::qemu_img(&["snapshot", "-c", name, arg(&path)]);
        }
        if zeros {
            peer::qemu_img(&["resize", "-q", "-f", "qcow2", arg(&path), &(size + MIB).to_string()]);
        }
        let load = Workload { seed: 4, size, cluster: 65536, compressed: false, zeros, steps: 10 };
        qemu_io(&path, &load.commands());
        same_check(&path, "snapshots");
        let open = image(&path, &Options::default()).unwrap();
        let list = open.snapshots().unwrap();
        let ids: Vec<_> = list.iter().map(|s| (s.id.as_str(), s.name.as_str())).collect();
        assert_eq!(ids, [("1", "first"), ("2", "second one"), ("3", "2")]);
        assert!(list.iter().all(|s| s.disk_size.is_none_or(|disk| disk == size) && s.vm_state_size == 0));
        same_bytes(&path, &open.disk("now").unwrap(), &converted(&path, None), "now");
        // "2" is an id before it is a name.
        for (wanted, name) in [("first", "first"), ("1", "first"), ("2", "second one"), ("3", "2")] {
            let options = Options { snapshot: Some(wanted.into()), ..Options::default() };
            let disk = image(&path, &options).unwrap().disk("then").unwrap();
            let id = list.iter().find(|s| s.name == name).unwrap();
            let out = dir.path().join("snapshot.raw");
            let which = format!("snapshot.id={},snapshot.name={}", id.id, id.name);
            peer::qemu_img(&["convert", "-q", "-O", "raw", "-l", &which, arg(&path), arg(&out)]);
            // qemu gives every snapshot the size that the disk has now; here it has the one it had.
            let mut expected = std::fs::read(&out).unwrap();
            assert!(expected.split_off(size as usize).iter().all(|&b| b == 0));
            same_bytes(&path, &disk, &expected, wanted);
        }
        let options = Options { snapshot: Some("third".into()), ..Options::default() };
        let e = image(&path, &options).map(drop).unwrap_err();
        assert_eq!(e.kind(), chart::Kind::NotFound);
        assert!(e.to_string().contains("second one"), "{e}");
    }
}

#[test]
fn a_small_cache_reads_the_same() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qcow2");
    let size = 24 * MIB;
    create(&path, &["cluster_size=512"], size);
    let load = Workload { seed: 8, size, cluster: 128 * KIB, compressed: false, zeros: true, steps: 200 };
    qemu_io(&path, &load.commands());
    let options = Options { cache_bytes: 0, ..Options::default() };
    let disk = image(&path, &options).unwrap().disk("small").unwrap();
    same_bytes(&path, &disk, &converted(&path, None), "small cache");
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (disk, path) = (&disk, &path);
            scope.spawn(move || {
                let expected = read_all(&super::disk(path).unwrap());
                let mut rng = Rng::new(seed);
                for _ in 0..2000 {
                    let (at, len) = rng.range(size, 4096);
                    let mut buf = vec![0; len as usize];
                    disk.read_at(at, &mut buf, Wait::Allowed).unwrap();
                    assert!(buf == expected[at as usize..][..buf.len()]);
                }
            });
        }
    });
}
