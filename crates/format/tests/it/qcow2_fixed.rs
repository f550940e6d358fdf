//! Images in what cannot be made longer, and holds anything behind them: devices, partitions, exports.

use chart::{Error, Identity, Limits, Result, Run, Source, Wait};
use format::qcow2::create::{New, create};
use format::qcow2::{Image, Options, Repair};
use io::memory::Memory;
use std::sync::Arc;
use testkit::{Rng, peer};

const MIB: u64 = 1 << 20;

/// A device: one that takes a shorter length for what it has, or refuses every length.
struct Device {
    inner: Memory,
    strict: bool,
}

impl Device {
    fn holding(image: &dyn Source, len: u64, strict: bool) -> Arc<Device> {
        let inner = Memory::new("device", len);
        for at in (0..len).step_by(MIB as usize) {
            inner.write_at(at, &vec![0xa5; MIB as usize], Wait::Allowed).unwrap();
        }
        let mut bytes = vec![0; image.len() as usize];
        image.read_at(0, &mut bytes, Wait::Allowed).unwrap();
        inner.write_at(0, &bytes, Wait::Allowed).unwrap();
        Arc::new(Device { inner, strict })
    }

    fn image(self: &Arc<Self>, repair: bool) -> Arc<Image> {
        let options = Options { writable: true, repair, ..Options::default() };
        let device: Arc<dyn Source> = self.clone();
        Arc::new(Image::open(device, &options, &mut |_| unreachable!()).unwrap())
    }

    #[track_caller]
    fn is_sound(&self) {
        if !peer::require(&["qemu-img"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device");
        let mut bytes = vec![0; self.len() as usize];
        self.read_at(0, &mut bytes, Wait::Allowed).unwrap();
        std::fs::write(&path, bytes).unwrap();
        peer::run("qemu-img", &["check", "-q", "-f", "qcow2", path.to_str().unwrap()]);
    }
}

impl Source for Device {
    fn name(&self) -> String {
        "device".into()
    }
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        self.inner.read_at(offset, buf, wait)
    }
    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        self.inner.write_at(offset, buf, wait)
    }
    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.inner.zero(offset, len, fast_only)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        match len <= self.len() && !self.strict {
            true => Ok(()),
            false => Err(Error::no_space("the device is full")),
        }
    }
    fn limits(&self) -> Limits {
        self.inner.limits()
    }
    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        self.inner.data_at(offset, want)
    }
    fn identity(&self) -> Identity {
        self.inner.identity()
    }
}

fn shapes() -> [New; 4] {
    [
        New { cluster_bits: 9, ..New::of(2 * MIB) },
        New { cluster_bits: 9, refcount_order: 6, ..New::of(2 * MIB) },
        New { cluster_bits: 12, version: 2, ..New::of(12 * MIB) },
        New { cluster_bits: 16, extended_l2: true, ..New::of(12 * MIB) },
    ]
}

fn on_device(new: &New, len: u64, strict: bool) -> Arc<Device> {
    let made = Memory::new("made", 0);
    create(&made, None, new).unwrap();
    Device::holding(&made, len, strict)
}

#[test]
fn all_of_a_device_is_used_behind_what_is_counted() {
    for (new, strict) in shapes().iter().zip([false, true].into_iter().cycle()) {
        let device = on_device(new, new.size + 4 * MIB, strict);
        let image = device.image(false);
        let disk = image.disk("all of it").unwrap();
        let bytes: Vec<u8> = (0..new.size).map(|n| (n / 509) as u8 | 1).collect();
        disk.write_at(0, &bytes, Wait::Allowed).unwrap();
        disk.flush().unwrap();
        disk.close().unwrap();
        let mut found = vec![0; bytes.len()];
        disk.read_at(0, &mut found, Wait::Allowed).unwrap();
        assert!(found == bytes);
        assert!(image.check().unwrap().is_clean(), "{:?}", image.check().unwrap());
        device.is_sound();
    }
}

#[test]
fn what_a_device_has_no_room_for_is_refused_and_harms_nothing() {
    let new = New { cluster_bits: 9, ..New::of(4 * MIB) };
    let device = on_device(&new, 2 * MIB, true);
    let disk = device.image(false).disk("too small").unwrap();
    let (mut at, piece) = (0, vec![7; 64 << 10]);
    let refused = loop {
        match disk.write_at(at, &piece, Wait::Allowed) {
            Ok(()) => at += piece.len() as u64,
            Err(e) => break e,
        }
    };
    assert_eq!(refused.kind(), chart::Kind::NoSpace, "{refused}");
    assert!(at > 3 * MIB / 2, "{at}");
    disk.close().unwrap();
    let image = device.image(false);
    let mut found = vec![0; at as usize];
    image.disk("again").unwrap().read_at(0, &mut found, Wait::Allowed).unwrap();
    assert!(found.iter().all(|byte| *byte == 7));
    assert!(image.check().unwrap().is_clean(), "{:?}", image.check().unwrap());
}

#[test]
fn snapshots_are_taken_applied_and_deleted_on_a_device() {
    for (seed, new) in (1..).zip(shapes()) {
        let device = on_device(&new, 2 * new.size + 8 * MIB, seed % 2 == 0);
        let mut rng = Rng::new(seed);
        let mut image = device.image(false);
        let mut model = vec![0; new.size as usize];
        let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
        for round in 0..60 {
            let disk = image.disk("snapshots").unwrap();
            for _ in 0..4 {
                let at = rng.below(new.size - 70_000);
                let piece = vec![rng.below(256) as u8; 1 + rng.below(65_536) as usize];
                disk.write_at(at, &piece, Wait::Allowed).unwrap();
                model[at as usize..][..piece.len()].copy_from_slice(&piece);
            }
            match rng.below(3) {
                0 if kept.len() < 3 => {
                    image.snapshot_create(&format!("s{round}")).unwrap();
                    kept.push((format!("s{round}"), model.clone()));
                }
                1 if !kept.is_empty() => {
                    let (name, was) = &kept[rng.below(kept.len() as u64) as usize];
                    image.snapshot_apply(name).unwrap();
                    model.clone_from(was);
                }
                2 if !kept.is_empty() => {
                    let (name, _) = kept.remove(rng.below(kept.len() as u64) as usize);
                    image.snapshot_delete(&name).unwrap();
                }
                _ => {}
            }
            let mut found = vec![0; model.len()];
            disk.read_at(0, &mut found, Wait::Allowed).unwrap();
            assert!(found == model, "seed {seed}, round {round}");
            if rng.below(4) == 0 {
                disk.close().unwrap();
                assert!(image.check().unwrap().is_clean(), "{:?}", image.check().unwrap());
                drop((disk, image));
                image = device.image(false);
            }
        }
        for (name, was) in &kept {
            let mut found = vec![0; was.len()];
            image.snapshot_disk(name).unwrap().read_at(0, &mut found, Wait::Allowed).unwrap();
            assert!(found == *was, "seed {seed}, snapshot {name}");
        }
        image.disk("end").unwrap().close().unwrap();
        device.is_sound();
    }
}

#[test]
fn an_image_on_a_device_is_repaired() {
    let new = New { cluster_bits: 12, ..New::of(4 * MIB) };
    let device = on_device(&new, 16 * MIB, true);
    let disk = device.image(false).disk("before").unwrap();
    disk.write_at(MIB, &vec![9; MIB as usize], Wait::Allowed).unwrap();
    disk.close().unwrap();
    drop(disk);
    // Refcounts that nobody wrote: those of the last writer were lost. The table is named at byte 48 of the header.
    let mut table = [0; 8];
    device.read_at(48, &mut table, Wait::Allowed).unwrap();
    let mut block = [0; 8];
    device.read_at(u64::from_be_bytes(table), &mut block, Wait::Allowed).unwrap();
    device.write_at(u64::from_be_bytes(block), &[0; 4096], Wait::Allowed).unwrap();
    let image = device.image(true);
    assert!(!image.check().unwrap().is_clean());
    image.repair(Repair::All).unwrap();
    assert!(image.check().unwrap().is_clean(), "{:?}", image.check().unwrap());
    let mut found = vec![0; MIB as usize];
    image.disk("after").unwrap().read_at(MIB, &mut found, Wait::Allowed).unwrap();
    assert!(found.iter().all(|byte| *byte == 9));
    device.is_sound();
}
