//! Images that lie: an error or bytes, soon, and never a panic.

use super::*;
use proptest::prelude::*;
use std::sync::OnceLock;
use testkit::source::Memory;

/// Small images with everything in them.
fn samples() -> &'static [Vec<u8>] {
    static SAMPLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        if !peer::require(&["qemu-img", "qemu-io"]) {
            return Vec::new();
        }
        let dir = tempfile::tempdir().unwrap();
        let mut all = Vec::new();
        for (i, options) in [
            &["cluster_size=512"][..],
            &["cluster_size=512", "compat=0.10"],
            &["cluster_size=16k", "extended_l2=on", "compression_type=zstd"],
            &["cluster_size=512", "refcount_bits=1"],
        ]
        .iter()
        .enumerate()
        {
            let path = dir.path().join(i.to_string());
            let size = 200 * KIB;
            create(&path, options, size);
            let zeros = !options.contains(&"compat=0.10");
            let cluster = if i == 2 { 16 * KIB } else { 512 };
            let load = Workload { seed: 2, size, cluster, compressed: true, zeros, steps: 30 };
            qemu_io(&path, &load.commands());
            if !options.contains(&"refcount_bits=1") {
                peer::qemu_img(&["snapshot", "-c", "snap", arg(&path)]);
                peer::qemu_io("qcow2", &path, &["write -P 2 3k 9k"]);
            }
            if zeros {
                peer::qemu_img(&["bitmap", "--add", "-g", "512", arg(&path), "bits"]);
                peer::qemu_io("qcow2", &path, &["write -P 2 9k 9k"]);
            }
            all.push(std::fs::read(&path).unwrap());
        }
        all
    })
}

/// Everything one can do with an image that one was given.
fn use_all(bytes: Vec<u8>) {
    let source: Arc<dyn Source> = Arc::new(Memory::of(bytes));
    for snapshot in [None, Some("snap".to_owned())] {
        let options = Options { snapshot, allow_corrupt: true, cache_bytes: 0, ..Options::default() };
        let mut opener = |_: Needed<'_>| Ok(Arc::new(Memory::of(vec![7; 100_000])) as Arc<dyn Source>);
        let Ok(image) = Image::open(Arc::clone(&source), &options, &mut opener) else { continue };
        let image = Arc::new(image);
        let _ = image.info();
        let _ = image.check();
        for bitmap in image.bitmaps().unwrap_or_default() {
            let map = bitmap.load(image.file().as_ref(), image.clusters(), image.size());
            let _ = map.map(|map| map.run(0, 1 << 20));
        }
        let Ok(disk) = image.disk("hostile") else { continue };
        let (mut at, mut buf) = (0, vec![0; 3000]);
        for _ in 0..500 {
            if at >= disk.len() {
                break;
            }
            let len = (disk.len() - at).min(3000);
            let _ = disk.read_at(at, &mut buf[..len as usize], Wait::Allowed);
            at += len;
        }
        let _ = disk.read_at(disk.len().saturating_sub(700), &mut [0; 512], Wait::Allowed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits(which in 0usize..4, flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..6)) {
        if let Some(mut bytes) = samples().get(which).cloned() {
            for (index, bit) in flips {
                let at = index.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            use_all(bytes);
        }
    }

    #[test]
    fn flipped_header_bits(which in 0usize..4, flips in prop::collection::vec((0usize..600, 0u8..8), 1..4)) {
        if let Some(mut bytes) = samples().get(which).cloned() {
            for (at, bit) in flips {
                bytes[at] ^= 1 << bit;
            }
            use_all(bytes);
        }
    }

    #[test]
    fn cut_off(which in 0usize..4, len in any::<prop::sample::Index>()) {
        if let Some(mut bytes) = samples().get(which).cloned() {
            bytes.truncate(len.index(bytes.len()));
            use_all(bytes);
        }
    }

    #[test]
    fn words_replaced(which in 0usize..4, words in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..8), small in any::<bool>()) {
        if let Some(mut bytes) = samples().get(which).cloned() {
            for (index, value) in words {
                let at = index.index(bytes.len() / 8) * 8;
                let value = if small { ((value % 400) * 512) | (value & (1 << 63)) } else { value };
                bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
            }
            use_all(bytes);
        }
    }
}

/// A header for images that are made by hand.
fn header(cluster_bits: u32, size: u64, l1_size: u32) -> Vec<u8> {
    let mut new = format::qcow2::Header::decode(&samples_header(), true).unwrap().unwrap();
    new.cluster_bits = cluster_bits;
    new.size = size;
    new.l1_size = l1_size;
    new.nb_snapshots = 0;
    new.extensions.clear();
    new.encode().unwrap()
}

fn samples_header() -> Vec<u8> {
    let file = Memory::new(0);
    format::qcow2::create::create(&file, None, &format::qcow2::create::New::of(1 << 20)).unwrap();
    file.bytes()
}

#[test]
fn every_l1_entry_to_one_table_that_maps_itself() {
    // 32 MiB of L1 table would be 4 million walks over one L2 table.
    let (bits, entries) = (21u32, 4u32 << 20);
    let cluster = 1u64 << bits;
    let mut bytes = header(bits, 1 << 57, entries);
    bytes[40..48].copy_from_slice(&cluster.to_be_bytes());
    bytes[48..56].copy_from_slice(&(20 * cluster).to_be_bytes());
    bytes[56..60].copy_from_slice(&1u32.to_be_bytes());
    bytes.resize(22 * cluster as usize, 0);
    let table = 18 * cluster;
    let pointer = (table | (1 << 63)).to_be_bytes();
    for at in
        (cluster..cluster + 8 * u64::from(entries)).step_by(8).chain((table..table + cluster).step_by(8))
    {
        bytes[at as usize..][..8].copy_from_slice(&pointer);
    }
    let began = std::time::Instant::now();
    let source: Arc<dyn Source> = Arc::new(Memory::of(bytes));
    let options = Options { alone: true, ..Options::default() };
    let image = Arc::new(Image::open(source, &options, &mut |_| unreachable!()).unwrap());
    let report = image.check().unwrap();
    assert!(report.corruptions > 0 && report.findings.len() <= 1000);
    let disk = image.disk("loop").unwrap();
    disk.read_at(1 << 50, &mut [0; 4096], Wait::Allowed).unwrap();
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

#[test]
fn tables_where_none_can_be_are_refused() {
    let good = samples_header();
    let refused = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        let source: Arc<dyn Source> = Arc::new(Memory::of(image));
        let e = Image::open(source, &Options::default(), &mut |_| unreachable!()).map(drop).unwrap_err();
        assert!(e.offset().is_some(), "{e}");
    };
    refused(0, b"X");
    refused(4, &4u32.to_be_bytes());
    refused(8, &(1u64 << 40).to_be_bytes());
    refused(20, &8u32.to_be_bytes());
    refused(20, &22u32.to_be_bytes());
    refused(20, &u32::MAX.to_be_bytes());
    refused(24, &u64::MAX.to_be_bytes());
    refused(32, &1u32.to_be_bytes());
    refused(36, &u32::MAX.to_be_bytes());
    refused(36, &0u32.to_be_bytes());
    refused(40, &0u64.to_be_bytes());
    refused(40, &1u64.to_be_bytes());
    refused(40, &(u64::MAX << 16).to_be_bytes());
    refused(48, &(1u64 << 62).to_be_bytes());
    refused(48, &3u64.to_be_bytes());
    refused(56, &u32::MAX.to_be_bytes());
    refused(60, &u32::MAX.to_be_bytes());
    refused(60, &1u32.to_be_bytes());
    refused(96, &7u32.to_be_bytes());
    refused(100, &8u32.to_be_bytes());
    refused(100, &u32::MAX.to_be_bytes());
    refused(116, &u32::MAX.to_be_bytes());
}

#[test]
fn a_file_cut_in_its_last_cluster_reads_zeros_there_and_one_cut_before_is_corrupt() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qcow2");
    create(&path, &[], MIB);
    peer::qemu_io("qcow2", &path, &["write -P 1 0 64k", "write -P 2 512k 64k"]);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    // The last cluster is the one written last.
    let len = file.metadata().unwrap().len();
    file.set_len(len - 20_000).unwrap();
    same_bytes(&path, &disk(&path).unwrap(), &converted(&path, None), "cut in the last cluster");
    file.set_len(len - 65_536).unwrap();
    let cut = disk(&path).unwrap();
    let e = cut.read_at(512 * KIB, &mut [0; 512], Wait::Allowed).unwrap_err();
    assert_eq!((e.kind(), e.offset()), (chart::Kind::Corrupt, Some(len - 65_536)));
    cut.read_at(0, &mut [0; 65536], Wait::Allowed).unwrap();
}

#[test]
fn data_in_the_tables_is_corrupt() {
    let good = samples_header();
    let word = |at: usize| u64::from_be_bytes(good[at..at + 8].try_into().unwrap());
    let (l1, refcounts, end) = (word(40), word(48), good.len() as u64);
    for target in [l1, refcounts] {
        let mut bytes = good.clone();
        bytes.resize(good.len() + 65536, 0);
        bytes[l1 as usize..][..8].copy_from_slice(&(end | (1 << 63)).to_be_bytes());
        bytes[good.len()..][..8].copy_from_slice(&(target | (1 << 63)).to_be_bytes());
        let file: Arc<dyn Source> = Arc::new(Memory::of(bytes));
        let image = Arc::new(Image::open(file, &Options::default(), &mut |_| unreachable!()).unwrap());
        let e = image.disk("a").unwrap().read_at(0, &mut [0; 512], Wait::Allowed).unwrap_err();
        assert_eq!((e.kind(), e.offset()), (chart::Kind::Corrupt, Some(target)));
    }
}
