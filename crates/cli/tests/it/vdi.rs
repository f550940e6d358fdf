//! VDI images on the command line: every pair of formats, cloned where that can be, and what is told of them.

use crate::run::Dir;
use serde_json::Value;
use testkit::peer;

const FORMATS: [&str; 3] = ["raw", "qcow2", "vdi"];

/// Bytes of the disk, by what became of them.
fn count(report: &Value, keys: &[&str]) -> u64 {
    keys.iter().map(|key| report[*key].as_u64().unwrap_or_else(|| panic!("{key}: {report}"))).sum()
}

/// Makes `disk.raw`, `disk.qcow2` and `disk.vdi` of one disk: every third MiB data.
fn sources(dir: &Dir, len: u64) {
    dir.raw("disk.raw", len);
    for format in ["qcow2", "vdi"] {
        dir.tool("qemu-img", &format!("convert -f raw -O {format} disk.raw disk.{format}"));
    }
}

fn judged_by_qemu(dir: &Dir, from: &str, to: &str) {
    let target = format!("{from}-to.{to}");
    dir.tool("qemu-img", &format!("compare -q -f raw -F {to} disk.raw {target}"));
    if to != "raw" {
        dir.tool("qemu-img", &format!("check -q -f {to} {target}"));
    }
}

#[test]
fn all_nine_pairs_hold_the_same_disk_and_count_every_byte() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    // Whole blocks, sectors over, and bytes over: QEMU takes 1000 for 1024, and so must VDI.
    for len in [9 << 20, (7 << 20) + 512, (4 << 20) - 4096, (3 << 20) + 1000] {
        let dir = Dir::new();
        sources(&dir, len);
        let sector = len.next_multiple_of(512);
        for (from, to) in FORMATS.iter().flat_map(|from| FORMATS.map(|to| (*from, to))) {
            let run = format!("convert --json --reflink never disk.{from} {from}-to.{to}");
            let report = dir.ok(&run).json();
            judged_by_qemu(&dir, from, to);
            let size = report["virtual-size"].as_u64().unwrap();
            assert!(size == len || from != "raw" && size == sector, "{run}: {report}");
            let stored = count(&report, &["cloned", "offloaded", "copied", "zeroed"]);
            let data = (0..len).step_by(1 << 20).step_by(3).map(|at| (len - at).min(1 << 20)).sum::<u64>();
            // What is found to be data is whole blocks of the file system.
            assert!((data..data + 4096).contains(&stored), "{run}: {data} bytes of data: {report}");
            assert_eq!(count(&report, &["cloned"]), 0, "{report}");
            assert_eq!(stored + count(&report, &["skipped"]), size.max(stored), "{run}: {report}");
            assert_eq!(report["tables"] == 0, to == "raw", "{run}: {report}");
            let file = dir.join(&format!("{from}-to.{to}")).metadata().unwrap().len();
            assert_eq!(report["file-size"], file, "{run}");
        }
    }
}

/// What converting does where ranges of files can be shared.
const ON_XFS: &str = r#"cp --sparse=always disk.raw disk.qcow2 disk.vdi mnt
cd mnt
for from in raw qcow2 vdi; do
    "$0" convert -q -O vdi disk.$from ours.vdi
    "$0" convert -q -O qcow2 disk.$from ours.qcow2
    for to in raw qcow2 vdi; do
        target=$from-to.$to
        "$0" convert --json --reflink always disk.$from $target > $target.json
        qemu-img compare -q -f raw -F $to disk.raw $target
        test $to = raw || qemu-img check -q -f $to $target
        filefrag -v -b4096 $target > ../$target.places
        cp $target.json ..
    done
    "$0" convert --json --reflink always ours.vdi ours-$from.qcow2 > ../ours-$from.qcow2.json
    "$0" convert --json --reflink always ours.qcow2 ours-$from.vdi > ../ours-$from.vdi.json
    for to in raw vdi; do
        "$0" convert --json --reflink always ours.vdi again-$from.$to > ../again-$from.$to.json
        qemu-img compare -q -f raw disk.raw again-$from.$to
    done
    qemu-img compare -q disk.raw ours-$from.qcow2 -f raw
    qemu-img compare -q disk.raw ours-$from.vdi -f raw
    rm ours.vdi ours.qcow2
done
"#;

#[test]
fn all_nine_pairs_are_cloned_where_the_file_system_can() {
    if !peer::require(&["mkfs.xfs", "unshare", "root", "qemu-img", "filefrag"]) {
        return;
    }
    let dir = Dir::new();
    let len = (20 << 20) + 65_536;
    sources(&dir, len);
    dir.on_xfs(ON_XFS);
    let report = |name: String| -> Value {
        serde_json::from_slice(&std::fs::read(dir.join(&format!("{name}.json"))).unwrap()).unwrap()
    };
    let data = 7 << 20;
    let moved = ["offloaded", "copied", "zeroed"];
    for (from, to) in FORMATS.iter().flat_map(|from| FORMATS.map(|to| (*from, to))) {
        let report = report(format!("{from}-to.{to}"));
        // It is so, and not only said.
        let places = std::fs::read_to_string(dir.join(&format!("{from}-to.{to}.places"))).unwrap();
        assert_eq!(
            crate::run::shared(&places),
            if from == "vdi" { 0 } else { data },
            "{from} to {to}: {places}"
        );
        match (from, to) {
            // With its holes.
            ("raw", "raw") => assert_eq!(count(&report, &["cloned"]), len, "{report}"),
            // QEMU's blocks lie between those of the file system, where nobody can share them.
            ("vdi", _) => assert_eq!(count(&report, &moved), data, "{from} to {to}: {report}"),
            _ => assert_eq!(
                (count(&report, &["cloned"]), count(&report, &moved)),
                (data, 0),
                "{from} to {to}: {report}"
            ),
        }
    }
    let ours = FORMATS.map(|from| [("ours", from, "qcow2"), ("ours", from, "vdi")]);
    let again = FORMATS.map(|from| [("again", from, "raw"), ("again", from, "vdi")]);
    for (which, from, to) in ours.into_iter().chain(again).flatten() {
        let report = report(format!("{which}-{from}.{to}"));
        assert_eq!(
            (count(&report, &["cloned"]), count(&report, &moved)),
            (data, 0),
            "ours from {from} to {to}: {report}"
        );
    }
}

#[test]
fn an_image_is_made_told_about_written_checked_and_resized() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q a.vdi 5M");
    dir.ok("create -q -o static=on b.vdi 5M");
    dir.ok("create -q -f vdi -o preallocation=full c 5M");
    assert_eq!(dir.join("c").metadata().unwrap().len(), 6 << 20);
    for (name, kind) in [("a.vdi", "dynamic"), ("b.vdi", "static"), ("c", "static")] {
        dir.tool("qemu-io", &format!("-f|vdi|-c|write -P 3 1M 300k|{name}"));
        let info = dir.ok(&format!("info --json {name}")).json();
        let theirs: Value =
            serde_json::from_str(&dir.tool("qemu-img", &format!("info --output=json {name}"))).unwrap();
        for key in ["format", "virtual-size", "cluster-size"] {
            assert_eq!(info[key], theirs[key], "{name}: {key}");
        }
        assert_eq!(info["format-specific"]["data"]["image-type"], kind);
        assert!(dir.ok(&format!("info {name}")).out.contains(&format!("vdi, {kind}, 1 MiB blocks")));
        assert_eq!(dir.ok(&format!("check --json {name}")).json()["corruptions"], 0);
        dir.ok(&format!("resize {name} 12M"));
        dir.tool("qemu-img", &format!("check -q {name}"));
        assert!(dir.tool("qemu-img", &format!("info {name}")).contains("12 MiB"));
    }
    dir.fails("create -o static=off,preallocation=full d.vdi 1M", &["static"]);
    dir.fails("create -o cluster_size=2M d.vdi 1M", &["cluster_size"]);
    dir.fails("create -b a.vdi -F vdi d.vdi 1M", &["backing file"]);
    dir.fails("convert -c a.vdi d.vdi", &["compressed"]);
    dir.fails("info a.vdi@then", &["versions"]);
    dir.fails("snapshot --create then a.vdi", &["snapshot"]);
}

#[test]
fn what_is_wrong_with_an_image_is_told_and_mended() {
    use std::os::unix::fs::FileExt;
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.tool("qemu-img", "create -q -f vdi a.vdi 4M");
    dir.tool("qemu-io", "-f|vdi|-c|write -P 3 0 2M|a.vdi");
    let file = std::fs::File::options().write(true).open(dir.join("a.vdi")).unwrap();
    // Two blocks in one, and one that nobody has.
    file.write_all_at(&0_u32.to_le_bytes(), 512 + 4).unwrap();
    let found = dir.run("check a.vdi");
    assert_eq!(found.code, 2, "{}", found.err);
    assert!(found.out.contains("another block's too"), "{}{}", found.out, found.err);
    dir.fails("resize a.vdi 8M", &["repair"]);
    dir.ok("check -r all a.vdi");
    dir.tool("qemu-img", "check -q -f vdi a.vdi");
    dir.tool("qemu-io", "-r|-f|vdi|-c|read -P 3 0 2M|a.vdi");
    // A differencing image names its parent by UUID only.
    file.write_all_at(&4_u32.to_le_bytes(), 0x4c).unwrap();
    file.write_all_at(&[0x44, 0x33, 0x22, 0x11, 0x66, 0x55], 0x1a8).unwrap();
    dir.fails("convert a.vdi b.raw", &["differencing", "11223344-5566-"]);
}

#[test]
fn a_measure_is_what_a_conversion_makes() {
    let dir = Dir::new();
    dir.raw("a.raw", (9 << 20) + 512);
    let told = dir.ok("measure --json -O vdi a.raw").json();
    dir.ok("convert -q a.raw a.vdi");
    assert_eq!(told["required"], dir.join("a.vdi").metadata().unwrap().len());
    assert_eq!(told["fully-allocated"], 11 << 20, "{told}");
    let told = dir.ok("measure --json -O vdi --size 1T").json();
    assert_eq!(told["required"], 5 << 20, "{told}");
}
