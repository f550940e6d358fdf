//! Which layer answers: what NBD calls the allocation depth.

use crate::memory;
use chart::{Disk, LeafPlace, Purpose, Slice, Source, SourceId, Wait};
use std::sync::Arc;
use testkit::contract::Patches;
use testkit::source::Short;

/// A layer of `len` bytes that holds one range, over another.
fn layer(name: &str, len: u64, (at, held): (u64, u64), below: Option<Arc<dyn Source>>) -> Arc<Disk> {
    let disk = Disk::builder(name, Arc::new(Patches::new(len).hold(at, held))).source(memory(60_000, 1));
    below.into_iter().fold(disk, chart::DiskBuilder::below).build().unwrap()
}

/// Three layers, each longer than the one below.
fn chain() -> Arc<Disk> {
    let bottom = layer("bottom", 30_000, (0, 10_000), None);
    let middle = layer("middle", 40_000, (10_000, 5000), Some(bottom));
    layer("top", 50_000, (20_000, 1000), Some(middle))
}

fn slice(of: Arc<Disk>, at: u64, len: u64) -> chart::DiskBuilder {
    Disk::builder("slice", Arc::new(Slice::new(SourceId(0), at, len, false).unwrap())).source(of)
}

/// Where each layer begins to answer, its number and its name.
fn layers(disk: &Disk) -> Vec<(u64, usize, &str)> {
    let mut found: Vec<(u64, usize, &str)> = Vec::new();
    let walk = disk.walk(0..disk.len(), Purpose::Locate);
    walk.each(|leaf| {
        let (layer, name) = (leaf.layer, leaf.disk.map_or("", Disk::name));
        if found.last().is_none_or(|known| (known.1, known.2) != (layer, name)) {
            found.push((leaf.at, layer, name));
        }
        Ok(())
    })
    .unwrap();
    found
}

#[test]
fn layers_are_counted_from_the_top() {
    let wanted = [
        (0, 3, "bottom"),
        (10_000, 2, "middle"),
        (15_000, 0, ""),
        (20_000, 1, "top"),
        (21_000, 0, ""),
        // Behind its end a layer makes zeros, which are its own: so has QEMU.
        (30_000, 3, "bottom"),
        (40_000, 2, "middle"),
    ];
    assert_eq!(layers(&chain()), wanted);
}

#[test]
fn a_window_on_a_chain_is_no_layer() {
    let disk = slice(chain(), 9000, 12_500).build().unwrap();
    let wanted =
        [(0, 3, "bottom"), (1000, 2, "middle"), (6000, 0, ""), (11_000, 1, "slice"), (12_000, 0, "")];
    assert_eq!(layers(&disk), wanted);
    // Nor is one below a layer.
    let over = layer("over", 12_500, (0, 100), Some(disk));
    let wanted = [
        (0, 1, "over"),
        (100, 4, "bottom"),
        (1000, 3, "middle"),
        (6000, 0, ""),
        (11_000, 2, "slice"),
        (12_000, 0, ""),
    ];
    assert_eq!(layers(&over), wanted);
}

#[test]
fn what_an_image_holds_is_its_own_wherever_the_image_lies() {
    let image = slice(chain(), 0, 50_000).image().build().unwrap();
    assert_eq!(layers(&image), [(0, 1, "slice")]);
    // Held where nothing is stored: not to be taken for what the image does not hold.
    let place = image.leaf(16_000, 1, Wait::Never, Purpose::Locate).unwrap().place;
    assert!(matches!(place, LeafPlace::Zero));
    let over = layer("over", 50_000, (7000, 10), Some(image));
    assert_eq!(layers(&over), [(0, 2, "slice"), (7000, 1, "over"), (7010, 2, "slice")]);
}

#[test]
fn a_layer_that_is_no_disk_has_a_number_and_no_name() {
    let disk = layer("top", 50_000, (1000, 1000), Some(memory(20_000, 2)));
    assert_eq!(layers(&disk), [(0, 2, ""), (1000, 1, "top"), (2000, 2, "")]);
    let wrapped = Arc::new(Short::new(chain(), 700));
    let disk = layer("over", 50_000, (0, 9000), Some(wrapped));
    assert_eq!(layers(&disk)[..3], [(0, 1, "over"), (9000, 4, "bottom"), (10_000, 3, "middle")]);
}

#[test]
fn what_no_disk_below_holds_is_nobodys() {
    let disk = layer("alone", 5000, (0, 100), None);
    assert_eq!(layers(&disk), [(0, 1, "alone"), (100, 0, "")]);
}
