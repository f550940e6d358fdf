//! Marks of formats, on images that come from somebody else.

use format::probe::{Mark, probe};
use io::file::{File, Options};
use std::process::Command;

#[test]
fn images_of_other_formats_are_known_by_name() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, args, mark) in [
        ("qcow2", "-f qcow2", Some(Mark::Qcow2)),
        ("raw", "-f raw", None),
        ("sparse.vmdk", "-f vmdk", Some(Mark::Foreign("VMDK"))),
        ("flat.vmdk", "-f vmdk -o subformat=monolithicFlat", Some(Mark::Foreign("VMDK"))),
        ("vdi", "-f vdi", Some(Mark::Vdi)),
        ("vhdx", "-f vhdx", Some(Mark::Foreign("VHDX"))),
        ("dynamic.vhd", "-f vpc", Some(Mark::Foreign("VHD"))),
        ("fixed.vhd", "-f vpc -o subformat=fixed", Some(Mark::Foreign("VHD"))),
        ("qed", "-f qed", Some(Mark::Foreign("QED"))),
        ("parallels", "-f parallels", Some(Mark::Foreign("Parallels"))),
        (
            "luks",
            "-f luks --object secret,id=s,data=secret -o key-secret=s,iter-time=10",
            Some(Mark::Foreign("LUKS (an encrypted container)")),
        ),
    ] {
        let done = Command::new("qemu-img")
            .args(["create", "-q"])
            .args(args.split(' '))
            .args([name, "8M"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        // Not every build of it makes every format.
        if !done.status.success() {
            println!("SKIPPED: qemu-img makes no {name}: {}", String::from_utf8_lossy(&done.stderr).trim());
            continue;
        }
        let file = File::open(dir.path().join(name), Options::default()).unwrap();
        assert_eq!(probe(&file).unwrap(), mark, "{name}");
    }
}
