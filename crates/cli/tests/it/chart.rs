use crate::run::Dir;
use serde_json::Value;

#[test]
fn the_rows_are_those_of_qemu_img_map() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    let theirs: Value = serde_json::from_str(&dir.tool("qemu-img", "map --output=json top.qcow2")).unwrap();
    let ours = dir.ok("chart --json top.qcow2").json();
    let key = |row: &Value, key: &str| row[key].clone();
    // Whoever walks it meets the same bytes in the same places, however the rows are cut.
    let flat = |rows: &Value| {
        let mut places = Vec::new();
        for row in rows.as_array().unwrap() {
            let (start, length) = (row["start"].as_u64().unwrap(), row["length"].as_u64().unwrap());
            for at in (0..length).step_by(4096) {
                let offset = row["offset"].as_u64().filter(|_| row["data"] == true).map(|o| o + at);
                let layer = (key(row, "depth"), key(row, "present"));
                let (data, zero, kind) = (key(row, "data"), key(row, "zero"), key(row, "kind"));
                places.push((start + at, data, zero, offset, layer, kind));
            }
        }
        places
    };
    let (ours_flat, theirs_flat) = (flat(&ours), flat(&theirs));
    assert_eq!(ours_flat.len(), theirs_flat.len());
    for (ours, theirs) in ours_flat.iter().zip(&theirs_flat) {
        // Of clusters that are only partly stored, qemu-img does not ask the host.
        let sparse = ours.5 == "sparse" && theirs.1 == true;
        assert!(
            sparse || (ours.0, &ours.1, &ours.2, ours.3) == (theirs.0, &theirs.1, &theirs.2, theirs.3),
            "{ours:?} {theirs:?}"
        );
        assert_eq!(ours.4, theirs.4, "{ours:?} {theirs:?}");
    }
}

#[test]
fn a_table_a_person_can_read() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    let table = dir.ok("chart top.qcow2").out;
    for word in ["AT", "hole", "zero", "raw", "sparse", "base.raw", "Layers:", "  1  mid.qcow2 (qcow2)"] {
        assert!(table.contains(word), "no {word:?} in\n{table}");
    }
}

#[test]
fn compressed_clusters_are_named() {
    let dir = Dir::new();
    dir.raw("disk.raw", 4 << 20);
    dir.ok("convert -q -c -o compression_type=zstd disk.raw small.qcow2");
    let rows = dir.ok("chart --json small.qcow2").json();
    let compressed =
        rows.as_array().unwrap().iter().find(|r| r["compressed"] == true).expect("one is compressed");
    assert_eq!(compressed["codec"], "zstd");
    assert!(compressed["stored"].as_u64().unwrap() < compressed["length"].as_u64().unwrap());
}

#[test]
fn a_picture_that_is_well_formed() {
    if !testkit::peer::require(&["qemu-img", "qemu-io", "rsvg-convert"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.ok("chart --svg top.svg top.qcow2");
    dir.fails("chart --svg top.svg top.qcow2", &["exists", "--force"]);
    dir.ok("chart --force --svg top.svg top.qcow2");
    dir.fails("chart --force --svg top.qcow2 top.qcow2", &["cannot be its own target"]);
    dir.tool("rsvg-convert", "top.svg -o top.png");
    let svg = std::fs::read_to_string(dir.join("top.svg")).unwrap();
    assert!(svg.contains("prefers-color-scheme:dark") && svg.contains("base.raw"));
    dir.raw("<&\">.raw", 1 << 20);
    let awkward = dir.ok("chart --svg - <&\">.raw").out;
    std::fs::write(dir.join("awkward.svg"), awkward).unwrap();
    dir.tool("rsvg-convert", "awkward.svg -o awkward.png");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::io::Read;
    use std::os::unix::fs::FileExt;
    use std::process::Stdio;
    let dir = Dir::new();
    let file = std::fs::File::create(dir.join("disk.raw")).unwrap();
    for i in 0..3000 {
        file.write_all_at(&[7; 4096], i << 16).unwrap();
    }
    for args in ["chart disk.raw", "chart --json disk.raw"] {
        let mut child = dir.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{args}");
    }
}

#[test]
fn a_chart_that_is_written_down_is_the_same_disk() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.tool("qemu-img", "convert -c -O qcow2 top.qcow2 packed.qcow2");
    for image in ["top.qcow2", "packed.qcow2"] {
        for chart in ["disk.chart", "disk.json"] {
            dir.ok(&format!("chart --force -o {chart} {image}"));
            dir.ok(&format!("convert --force {chart} out.raw"));
            dir.tool("qemu-img", &format!("compare {image} -F raw out.raw"));
            assert!(dir.join(chart).metadata().unwrap().len() < 64 << 10, "it holds data");
        }
    }
    dir.ok("chart --force -o disk.chart packed.qcow2");
    dir.ok("compare disk.chart packed.qcow2");
    assert!(dir.run("chart -o disk.chart top.qcow2").err.contains("exists"));
    // A moved chart no longer finds its files where the Gate lets it look.
    std::fs::create_dir(dir.join("elsewhere")).unwrap();
    assert!(!dir.ok("chart --force -o disk.chart packed.qcow2").out.contains("--allow"));
    let told = dir.ok("chart -o elsewhere/disk.chart packed.qcow2").out;
    assert!(told.contains(&format!("--allow {}", dir.path().display())), "{told}");
    dir.fails("info elsewhere/disk.chart", &["packed.qcow2"]);
    dir.ok("info --allow . elsewhere/disk.chart");
    // What has changed since is not taken for what was charted.
    dir.ok("chart --force -o disk.chart packed.qcow2");
    std::thread::sleep(std::time::Duration::from_millis(20));
    let image = dir.join("packed.qcow2");
    std::fs::write(&image, std::fs::read(&image).unwrap()).unwrap();
    dir.fails("info disk.chart", &["packed.qcow2", "since it was charted"]);
}
