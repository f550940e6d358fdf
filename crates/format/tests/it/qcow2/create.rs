//! Images made here are images to qemu.

use super::*;
use format::qcow2::Compression;
use format::qcow2::create::{Backing, New, Preallocation, create as make};

fn news() -> Vec<New> {
    let mut all = vec![New::of(0), New::of(512), New::of(10 * MIB + 512), New::of(1 << 40)];
    for bits in 9..=21 {
        all.push(New { cluster_bits: bits, ..New::of(6 * MIB + 512) });
        all.push(New { cluster_bits: bits, version: 2, ..New::of(6 * MIB + 512) });
    }
    for refcount_order in 0..=6 {
        all.push(New { refcount_order, lazy_refcounts: true, ..New::of(30 * MIB) });
        all.push(New {
            refcount_order,
            cluster_bits: 9,
            preallocation: Preallocation::Metadata,
            ..New::of(3 * MIB)
        });
    }
    for preallocation in [Preallocation::Metadata, Preallocation::Falloc, Preallocation::Full] {
        for extended_l2 in [false, true] {
            all.push(New { preallocation, extended_l2, ..New::of(5 * MIB + 1024) });
            all.push(New { preallocation, extended_l2, cluster_bits: 14, ..New::of(40 * MIB) });
        }
        all.push(New { preallocation, version: 2, cluster_bits: 12, ..New::of(5 * MIB + 1024) });
    }
    all.push(New { compression: Compression::Zstd, ..New::of(MIB) });
    all
}

#[test]
fn what_is_made_is_clean_and_empty_and_can_be_written() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (i, new) in news().iter().enumerate() {
        let path = dir.path().join(format!("{i}.qcow2"));
        let what = format!("{new:?}");
        make(source_rw(&path).as_ref(), None, new).unwrap_or_else(|e| panic!("{what}: {e}"));
        let said = same_check(&path, &what);
        assert_eq!((said.get("corruptions"), said.get("leaks")), (None, None), "{what}");
        let info: serde_json::Value =
            serde_json::from_str(&peer::qemu_img(&["info", "--output=json", arg(&path)])).unwrap();
        assert_eq!(info["virtual-size"], new.size, "{what}");
        assert_eq!(info["cluster-size"], 1u64 << new.cluster_bits, "{what}");
        let specific = &info["format-specific"]["data"];
        assert_eq!(specific["compat"], if new.version == 2 { "0.10" } else { "1.1" }, "{what}");
        if new.version == 3 {
            assert_eq!(specific["refcount-bits"], 1 << new.refcount_order, "{what}");
            assert_eq!(specific["lazy-refcounts"], new.lazy_refcounts, "{what}");
            assert_eq!(specific["extended-l2"], new.extended_l2, "{what}");
            assert_eq!(specific["compression-type"], new.compression.name(), "{what}");
        }
        if new.size == 0 || new.size > 100 << 30 {
            continue;
        }
        assert!(read_all(&disk(&path).unwrap()).iter().all(|&b| b == 0), "{what}");
        let (size, cluster) = (new.size, 1 << new.cluster_bits);
        let zeros = new.version == 3;
        let compressed = new.preallocation == Preallocation::Off;
        let load = Workload { seed: 5, size, cluster, compressed, zeros, steps: 10 };
        qemu_io(&path, &load.commands());
        same_bytes(&path, &disk(&path).unwrap(), &converted(&path, None), &what);
        same_check(&path, &what);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn overlays_and_data_files() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let base = New::of(2 * MIB);
    make(source_rw(&at("base")).as_ref(), None, &base).unwrap();
    peer::qemu_io("qcow2", &at("base"), &["write -P 7 100k 1M"]);
    for bits in [9, 16] {
        let backing = Some(Backing { name: "base".into(), format: Some("qcow2".into()) });
        let top = New { backing, cluster_bits: bits, ..New::of(3 * MIB) };
        let path = at(&format!("top{bits}"));
        make(source_rw(&path).as_ref(), None, &top).unwrap();
        peer::qemu_io("qcow2", &path, &["write -P 8 1M 100k"]);
        same_bytes(&path, &disk(&path).unwrap(), &converted(&path, None), "top");
        same_check(&path, "top");
    }
    for (i, (raw, extended_l2, preallocation)) in [
        (false, false, Preallocation::Off),
        (true, false, Preallocation::Off),
        (true, true, Preallocation::Off),
        (false, false, Preallocation::Metadata),
        (false, true, Preallocation::Full),
    ]
    .into_iter()
    .enumerate()
    {
        let (path, data) = (at(&format!("d{i}")), at(&format!("d{i}.raw")));
        let new = New {
            data_file: Some(arg(&data).to_owned()),
            data_file_raw: raw,
            extended_l2,
            preallocation,
            ..New::of(3 * MIB + 512)
        };
        make(source_rw(&path).as_ref(), Some(source_rw(&data).as_ref()), &new).unwrap();
        let what = format!("{new:?}");
        same_check(&path, &what);
        let load =
            Workload { seed: 6, size: new.size, cluster: 65536, compressed: false, zeros: true, steps: 20 };
        qemu_io(&path, &load.commands());
        let expected = converted(&path, None);
        same_bytes(&path, &disk(&path).unwrap(), &expected, &what);
        let said = same_check(&path, &what);
        assert_eq!(said.get("corruptions"), None);
        if raw {
            // qemu rounds the data file up to whole clusters when it writes there.
            assert!(std::fs::read(&data).unwrap()[..expected.len()] == expected, "{what}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let backing = || Some(Backing { name: "b".into(), format: None });
    let bad = [
        New { cluster_bits: 8, ..New::of(1) },
        New { cluster_bits: 22, ..New::of(1) },
        New { refcount_order: 7, ..New::of(1) },
        New { version: 2, extended_l2: true, ..New::of(1) },
        New { version: 2, lazy_refcounts: true, ..New::of(1) },
        New { version: 2, refcount_order: 3, ..New::of(1) },
        New { version: 4, ..New::of(1) },
        New { extended_l2: true, cluster_bits: 12, ..New::of(1) },
        New { cluster_bits: 9, ..New::of(1 << 40) },
        New { data_file_raw: true, ..New::of(1) },
        New { data_file: Some("d".into()), ..New::of(1) },
        New { backing: backing(), preallocation: Preallocation::Full, ..New::of(1) },
        New { backing: Some(Backing { name: "b".repeat(1024), format: None }), ..New::of(1) },
        New { backing: Some(Backing { name: "b".repeat(500), format: None }), cluster_bits: 9, ..New::of(1) },
        New { size: u64::MAX, ..New::of(1) },
        New { preallocation: Preallocation::Metadata, ..New::of(1 << 56) },
    ];
    for new in bad {
        let e = make(source_rw(&path).as_ref(), None, &new).map(drop).expect_err(&format!("{new:?}"));
        assert!(!e.to_string().is_empty());
    }
}
