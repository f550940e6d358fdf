use crate::run::Dir;
use serde_json::Value;

/// The keys that both tell mean the same.
fn agree(ours: &Value, theirs: &Value) {
    for key in [
        "virtual-size",
        "format",
        "actual-size",
        "cluster-size",
        "dirty-flag",
        "backing-filename",
        "full-backing-filename",
        "backing-filename-format",
    ] {
        assert_eq!(
            ours.get(key).or(Some(&Value::Bool(false))),
            theirs.get(key).or(Some(&Value::Bool(false))),
            "{key}"
        );
    }
}

#[test]
fn it_agrees_with_qemu_img() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    let theirs: Value =
        serde_json::from_str(&dir.tool("qemu-img", "info --output=json --backing-chain top.qcow2")).unwrap();
    let ours = dir.ok("info --json --chain top.qcow2").json();
    assert_eq!(ours.as_array().unwrap().len(), 3);
    for (ours, theirs) in ours.as_array().unwrap().iter().zip(theirs.as_array().unwrap()).take(2) {
        agree(ours, theirs);
    }
    let theirs: Value = serde_json::from_str(&dir.tool("qemu-img", "info --output=json top.qcow2")).unwrap();
    agree(&dir.ok("info --json top.qcow2").json(), &theirs);
    // From elsewhere, too.
    std::fs::create_dir(dir.join("sub")).unwrap();
    dir.tool("qemu-img", "create -q -u -f qcow2 -F qcow2 -b ../top.qcow2 sub/over.qcow2 1M");
    let absolute = dir.join("top.qcow2").display().to_string();
    dir.tool("qemu-img", &format!("create -q -u -f qcow2 -F qcow2 -b {absolute} sub/absolute.qcow2 1M"));
    for name in ["sub/over.qcow2", "./sub/over.qcow2", "sub/absolute.qcow2"] {
        let theirs = dir.tool("qemu-img", &format!("info --output=json {name}"));
        agree(&dir.ok(&format!("info --json {name}")).json(), &serde_json::from_str(&theirs).unwrap());
    }
    let told = dir.ok("info sub/over.qcow2").out;
    assert!(told.contains("../top.qcow2 (qcow2), which is sub/../top.qcow2"), "{told}");
}

#[test]
fn it_reads_nothing_that_the_image_names() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.tool("qemu-img", "create -q -u -f qcow2 -F raw -b /etc/shadow evil.qcow2 1M");
    let told = dir.ok("info evil.qcow2").out;
    assert!(told.contains("/etc/shadow (raw)"), "{told}");
    dir.fails("info --chain evil.qcow2", &["/etc/shadow", "outside", "--allow"]);
    dir.fails("convert evil.qcow2 out.raw", &["/etc/shadow", "outside"]);
    assert_eq!(dir.names(), ["evil.qcow2"]);
}

#[test]
fn an_encrypted_image_is_told_about_and_not_read() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    let secret = "create|-q|--object|secret,id=s,data=x|-f|qcow2|-o|encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10|e.qcow2|1M";
    dir.tool("qemu-img", secret);
    let told = dir.ok("info --json e.qcow2").json();
    assert_eq!((&told["virtual-size"], &told["format"]), (&(1 << 20).into(), &"qcow2".into()));
    assert!(told["unusable"].as_str().unwrap().contains("encrypt"), "{told}");
    dir.fails("convert e.qcow2 out.raw", &["encrypt"]);
}

#[test]
fn raw_and_block_sizes() {
    let dir = Dir::new();
    dir.raw("disk.raw", 5 << 20);
    let told = dir.ok("info --json disk.raw").json();
    assert_eq!((&told["format"], &told["virtual-size"]), (&"raw".into(), &(5 << 20).into()));
    assert_eq!(told["actual-size"], 2 << 20);
}

#[test]
fn only_a_directory_is_allowed() {
    let dir = Dir::new();
    dir.raw("base.raw", 1 << 20);
    dir.ok("create -q -b base.raw -F raw top.qcow2");
    dir.fails(
        "info --chain --allow base.raw top.qcow2",
        &["base.raw: is no directory that could be allowed"],
    );
    dir.ok("info --chain --allow . top.qcow2");
}
