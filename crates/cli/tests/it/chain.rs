//! commit and rebase.

use crate::run::Dir;

fn flat(dir: &Dir, name: &str, to: &str) {
    dir.tool("qemu-img", &format!("convert -O raw {name} {to}"));
}

#[test]
fn a_commit_keeps_the_disk_and_empties_the_overlay() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    flat(&dir, "top.qcow2", "before.raw");
    let report = dir.ok("commit --json top.qcow2").json();
    assert_eq!(report["emptied"], true);
    assert!(report["moved"].as_u64().unwrap() >= 1 << 20, "{report}");
    for name in ["top.qcow2", "mid.qcow2"] {
        dir.tool("qemu-img", &format!("check -q {name}"));
        dir.tool("qemu-img", &format!("compare -q {name} before.raw"));
    }
    let rows = dir.ok("chart --json top.qcow2").json();
    assert!(rows.as_array().unwrap().iter().all(|row| row["depth"] != 0 || row["data"] == false));
    dir.ok("commit -d mid.qcow2");
    dir.tool("qemu-img", "compare -q -f raw base.raw before.raw");
    dir.fails("commit -f raw base.raw", &["no backing file"]);
}

#[test]
fn a_rebase_keeps_the_disk() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    flat(&dir, "top.qcow2", "before.raw");
    let same = || {
        dir.tool("qemu-img", "check -q top.qcow2");
        dir.tool("qemu-img", "compare -q top.qcow2 before.raw");
    };
    // Down to the base, up to the middle again, and to stand alone.
    dir.ok("rebase -b base.raw -F raw top.qcow2");
    same();
    assert_eq!(dir.ok("info --json top.qcow2").json()["backing-filename"], "base.raw");
    dir.ok("rebase -b mid.qcow2 -F qcow2 top.qcow2");
    same();
    let alone = dir.command("rebase -F raw top.qcow2").args(["-b", ""]).output().unwrap();
    assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
    same();
    assert!(dir.ok("info --json top.qcow2").json().get("backing-filename").is_none());
}

#[test]
fn a_rebase_by_name_only_and_what_is_refused() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.fails("rebase -b mid.qcow2 top.qcow2", &["format"]);
    dir.fails("rebase -b absent -F raw top.qcow2", &["absent"]);
    dir.fails("rebase -b top.qcow2 -F qcow2 mid.qcow2", &["mid.qcow2"]);
    std::fs::rename(dir.join("mid.qcow2"), dir.join("moved.qcow2")).unwrap();
    dir.fails("rebase -b moved.qcow2 -F qcow2 top.qcow2", &["mid.qcow2"]);
    let said = dir.ok("rebase -u -b moved.qcow2 -F qcow2 top.qcow2").out;
    assert!(said.contains("only the name") && !said.contains("copied"), "{said}");
    dir.ok("compare top.qcow2 top.qcow2");
    assert_eq!(dir.ok("info --json top.qcow2").json()["backing-filename"], "moved.qcow2");
}

#[test]
fn a_loop_of_any_length_is_refused() {
    let dir = Dir::new();
    dir.ok("create a.qcow2 4M");
    for (over, under) in [("b", "a"), ("c", "b"), ("d", "c")] {
        dir.ok(&format!("create -b {under}.qcow2 -F qcow2 {over}.qcow2"));
    }
    let before = std::fs::read(dir.join("a.qcow2")).unwrap();
    for how in ["-u ", ""] {
        for (top, chain) in [("c", "c.qcow2 -> b.qcow2 -> a.qcow2"), ("d", "d.qcow2 -> c.qcow2 -> b.qcow2")] {
            dir.fails(&format!("rebase {how}-b {top}.qcow2 -F qcow2 a.qcow2"), &[chain, "below"]);
        }
    }
    assert!(before == std::fs::read(dir.join("a.qcow2")).unwrap());
    // Names that lead nowhere are none of its business.
    dir.ok("rebase -u -b nowhere.qcow2 -F qcow2 b.qcow2");
    dir.ok("rebase -u -b d.qcow2 -F qcow2 a.qcow2");
}
