//! Features that are named, refused, listed.

use super::*;
use chart::Kind;
use format::qcow2::Header;
use std::os::unix::fs::FileExt;

fn poke(path: &Path, offset: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn refusal(path: &Path) -> chart::Error {
    image(path, &Options::default()).map(drop).expect_err("it should be refused")
}

#[test]
fn unknown_features_encryption_and_corruption_are_named() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qcow2");
    let fresh = |options: &[&str]| {
        let _ = std::fs::remove_file(&path);
        create(&path, options, MIB);
    };
    fresh(&[]);
    poke(&path, 72 + 2, &[1]);
    let e = refusal(&path);
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.to_string().contains("incompatible bit 40"), "{e}");
    // The same, with a name for it in the image.
    let mut header = Header::read(source(&path).as_ref()).unwrap();
    let mut names = header.extension(0x6803_f857).unwrap().to_vec();
    names.extend([0, 40]);
    names.extend(b"time travel");
    names.resize(names.len().next_multiple_of(48), 0);
    header.set_extension(0x6803_f857, Some(names));
    poke(&path, 0, &header.encode().unwrap());
    let e = refusal(&path);
    assert!(e.to_string().contains("\"time travel\""), "{e}");

    fresh(&[]);
    poke(&path, 72 + 7, &[2]);
    let e = refusal(&path);
    assert_eq!(e.kind(), Kind::Corrupt);
    assert!(e.to_string().contains("corrupt bit"), "{e}");
    assert!(
        image(&path, &Options { allow_corrupt: true, ..Options::default() }).unwrap().info().unwrap().corrupt
    );
    let options = Options { allow_corrupt: true, writable: true, ..Options::default() };
    assert!(image(&path, &options).is_err());

    fresh(&[]);
    poke(&path, 32, &[0, 0, 0, 2]);
    let e = refusal(&path);
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.to_string().contains("LUKS"), "{e}");

    fresh(&[]);
    poke(&path, 104, &[1]);
    assert_eq!(refusal(&path).kind(), Kind::Corrupt);
    poke(&path, 72 + 7, &[8]);
    image(&path, &Options::default()).unwrap();
    poke(&path, 104, &[2]);
    assert_eq!(refusal(&path).kind(), Kind::Unsupported);
}

#[test]
fn a_header_comes_back_as_it_was() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base"), [0; 4096]).unwrap();
    for (i, options) in [
        &["compat=1.1"][..],
        &["compat=0.10"],
        &["backing_file=base", "backing_fmt=raw"],
        &["backing_file=base", "backing_fmt=raw", "compat=0.10"],
        &["cluster_size=2M", "backing_file=base", "backing_fmt=raw"],
        &["cluster_size=512"],
        &["compression_type=zstd", "extended_l2=on", "lazy_refcounts=on", "refcount_bits=1"],
    ]
    .iter()
    .enumerate()
    {
        let path = dir.path().join(i.to_string());
        create(&path, options, MIB);
        let header = Header::read(source(&path).as_ref()).unwrap();
        let encoded = header.encode().unwrap();
        let stored = std::fs::read(&path).unwrap();
        assert_eq!(Header::decode(&encoded, true).unwrap().unwrap(), header, "{options:?}");
        // qemu puts the backing file's name directly behind the extensions, as we do.
        assert!(stored[..encoded.len()] == encoded, "{options:?}");
        // What is not understood is kept.
        let mut header = header;
        if header.version == 3 && header.cluster_bits > 9 {
            header.additional.extend([1, 2, 3, 4, 5, 6, 7, 8]);
            header.header_length += 8;
            header.set_extension(0x1234_5678, Some(b"something new".to_vec()));
            let again = Header::decode(&header.encode().unwrap(), true).unwrap().unwrap();
            assert_eq!(again, header);
            poke(&path, 0, &header.encode().unwrap());
            peer::qemu_img(&["info", arg(&path)]);
        }
    }
}

#[test]
fn info_says_what_qemu_says() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qcow2");
    create(&path, &["refcount_bits=8", "cluster_size=4096"], 5 * MIB);
    peer::qemu_img(&["snapshot", "-c", "eins", arg(&path)]);
    peer::qemu_img(&["bitmap", "--add", "-g", "8192", arg(&path), "täglich"]);
    peer::qemu_img(&["bitmap", "--add", "--disable", arg(&path), "old"]);
    let info = image(&path, &Options::default()).unwrap().info().unwrap();
    assert_eq!((info.virtual_size, info.cluster_size, info.refcount_bits), (5 * MIB, 4096, 8));
    assert_eq!((info.compat(), info.compression.name()), ("1.1", "zlib"));
    assert!(!info.dirty && !info.corrupt && !info.stale_bitmaps && info.unknown_features.is_empty());
    let bitmaps: Vec<_> =
        info.bitmaps.iter().map(|b| (b.name.as_str(), b.granularity(), b.is_auto())).collect();
    assert_eq!(bitmaps, [("täglich", 8192, true), ("old", 4096, false)]);
    assert_eq!(info.snapshots[0].name, "eins");
    assert_eq!(info.snapshots[0].icount, Some(0));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(u64::from(info.snapshots[0].date_sec).abs_diff(now) < 600);
}

#[test]
fn bitmaps_say_what_was_written() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (i, (cluster, granularity)) in
        [(65536u64, 65536u64), (512, 512), (4096, 2 << 20), (65536, 512)].into_iter().enumerate()
    {
        let path = dir.path().join(i.to_string());
        let size = 20 * MIB + 512;
        create(&path, &[&format!("cluster_size={cluster}")], size);
        peer::qemu_img(&["bitmap", "--add", "-g", &granularity.to_string(), arg(&path), "b"]);
        let mut rng = Rng::new(i as u64);
        let mut expected = vec![false; usize::try_from(size.div_ceil(granularity)).unwrap()];
        let mut commands = Vec::new();
        for _ in 0..30 {
            let (at, len) = (rng.below(size / 512) * 512, 512 * (1 + rng.below(300)));
            let len = len.min(size - at);
            commands.push(format!("write -P 3 {at} {len}"));
            let bits = at / granularity..=(at + len - 1) / granularity;
            bits.for_each(|bit| expected[usize::try_from(bit).unwrap()] = true);
        }
        qemu_io(&path, &commands);
        let open = image(&path, &Options::default()).unwrap();
        let bitmap = &open.bitmaps().unwrap()[0];
        let map = bitmap.load(open.file().as_ref(), open.clusters(), open.size()).unwrap();
        for (bit, &dirty) in expected.iter().enumerate() {
            assert_eq!(map.is_dirty(bit as u64 * granularity), dirty, "bit {bit} of {granularity}");
        }
        let (mut at, mut sum) = (0, 0);
        while at < size {
            let (dirty, len) = map.run(at, u64::MAX);
            assert!(len > 0 && at + len <= size);
            let (first, last) = (at / granularity, (at + len - 1) / granularity);
            assert!((first..=last).all(|bit| expected[bit as usize] == dirty));
            sum += if dirty { len } else { 0 };
            at += len;
        }
        assert_eq!(map.dirty_bytes(), sum);
        // What the bitmaps extension's own bit denies does not count.
        let mut header = Header::read(source(&path).as_ref()).unwrap();
        let encoded = format::qcow2::bitmap::encode(&open.bitmaps().unwrap()).unwrap();
        let extension = header.bitmaps().unwrap();
        let mut stored = vec![0; encoded.len()];
        open.file().read_at(extension.bitmap_directory_offset.get(), &mut stored, Wait::Allowed).unwrap();
        assert!(stored == encoded);
        header.autoclear_features = 0;
        poke(&path, 0, &header.encode().unwrap());
        let info = image(&path, &Options::default()).unwrap().info().unwrap();
        assert!(info.bitmaps.is_empty() && info.stale_bitmaps);
        same_check(&path, "stale bitmaps");
    }
}

#[test]
fn snapshot_tables_encode_to_what_qemu_wrote() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for options in [&["compat=1.1"][..], &["compat=0.10"]] {
        let path = dir.path().join(options[0]);
        create(&path, options, MIB);
        for name in ["a", "bb", "ccc"] {
            peer::qemu_img(&["snapshot", "-c", name, arg(&path)]);
        }
        let header = Header::read(source(&path).as_ref()).unwrap();
        let list = format::qcow2::snapshot::read(source(&path).as_ref(), &header).unwrap();
        let encoded = format::qcow2::snapshot::encode(&list).unwrap();
        let stored = &std::fs::read(&path).unwrap()[header.snapshots_offset as usize..];
        // The last entry's padding is past the file's end.
        assert!(encoded.len() - stored.len() < 8 && encoded[..stored.len()] == *stored, "{options:?}");
    }
}
