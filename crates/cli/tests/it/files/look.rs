//! `ls` and `cat`.

use super::{START, able, compare, divided, seen, tree};
use crate::run::Dir;
use std::path::PathBuf;

#[test]
fn partitions_are_those_of_sfdisk() {
    if !able() {
        return;
    }
    let dir = Dir::new();
    divided(&dir, 8, |_| {});
    let ours = dir.ok("ls --json disk.qcow2").json();
    let theirs: serde_json::Value = serde_json::from_str(&dir.tool("sfdisk", "--json raw")).unwrap();
    let (one, two) = (&ours["partitions"][0], &theirs["partitiontable"]["partitions"][0]);
    assert_eq!((&ours["scheme"], &one["name"]), (&"gpt".into(), &two["name"]));
    assert_eq!(one["start"].as_u64(), two["start"].as_u64().map(|s| s * 512));
    assert_eq!(one["size"].as_u64(), two["size"].as_u64().map(|s| s * 512));
    assert_eq!((&one["file-system"], &one["label"]), (&"ext4".into(), &"wurzel".into()));
    let words = dir.ok("ls disk.qcow2").out;
    for word in ["gpt", "#1", "1048576", "8 MiB", "Linux filesystem", "ext4", "wurzel / root"] {
        assert!(words.contains(word), "{word}: {words}");
    }
    assert_eq!(one["start"], START);
    // A disk without anything in it.
    dir.raw("blank", 1 << 20);
    dir.fails("ls -f raw blank", &["no file system"]);
    dir.fails("ls raw#2", &["#2"]);
}

#[test]
fn what_is_not_read_is_told_by_its_name() {
    if !testkit::peer::require(&["sfdisk", "mkfs.xfs", "mkswap"]) {
        return;
    }
    let dir = Dir::new();
    let sparse = |name: &str, mib: u64| {
        std::fs::File::create(dir.join(name)).unwrap().set_len(mib << 20).unwrap();
    };
    for (name, mib) in [("disk", 340), ("xfs", 320), ("swap", 10)] {
        sparse(name, mib);
    }
    std::fs::write(dir.join("script"), "label: dos\nsize=320M\nsize=10M,type=82\nsize=1M\n").unwrap();
    dir.tool("sh", "-c|sfdisk -q disk < script && mkfs.xfs -q xfs && mkswap -q swap");
    for (name, at) in [("xfs", 1), ("swap", 321)] {
        dir.tool("dd", &format!("if={name} of=disk bs=1M seek={at} conv=notrunc,sparse status=none"));
    }
    let told = dir.ok("ls --json disk").json();
    let held = [0, 1, 2].map(|i| told["partitions"][i]["file-system"].as_str().unwrap_or("none").to_owned());
    assert_eq!(held, ["xfs", "swap", "none"]);
    for command in ["ls disk#1", "ls xfs", "cat xfs:/etc/fstab", "extract -o out disk#1"] {
        dir.fails(command, &["holds xfs, which is not read here", "ext4"]);
    }
    dir.fails("ls disk#3", &["no file system that is known here"]);
    // What holds others begins with what looks like a table of its own.
    std::fs::write(dir.join("script"), "label: dos\n2: size=100M,type=5\n5: size=10M\n6: size=10M\n")
        .unwrap();
    dir.tool("sh", "-c|sfdisk -q disk < script");
    assert!(dir.ok("ls disk").out.contains("#6"));
    dir.fails("ls disk#2", &["disk#2: is extended", "of disk from #5 on", "portolan ls"]);
}

#[test]
fn files_are_those_of_the_kernel() {
    if !able() {
        return;
    }
    let dir = Dir::new();
    divided(&dir, 96, tree::fill);
    let seen = seen(&dir);
    let theirs = compare::look(seen.path());
    let ours = dir.ok("ls -R --json disk.qcow2#1").json();
    let ours = ours.as_array().unwrap();
    // The root itself is not in its list.
    assert_eq!(ours.len(), theirs.len() - 1);
    for row in ours {
        let path = match row["path-bytes"].as_array() {
            None => PathBuf::from(row["path"].as_str().unwrap()),
            Some(bytes) => {
                let bytes: Vec<u8> = bytes.iter().map(|b| b.as_u64().unwrap() as u8).collect();
                PathBuf::from(std::ffi::OsString::from(String::from_utf8_lossy(&bytes).into_owned()))
            }
        };
        let Some(theirs) = theirs.get(&path) else {
            assert!(row["path-bytes"].is_array(), "{row}");
            continue;
        };
        assert_eq!(row["mode"], theirs.mode & 0o7777, "{row}");
        assert_eq!(
            (row["uid"].as_u64(), row["gid"].as_u64()),
            (Some(theirs.owner.0.into()), Some(theirs.owner.1.into()))
        );
        if row["kind"] == "file" {
            assert_eq!(row["size"].as_u64(), Some(theirs.size()));
        }
    }
    let words = dir.ok("ls disk.qcow2#1:/links").out;
    assert!(words.contains("symlink 1 -> /etc/passwd"), "{words}");
    let words = dir.ok("ls disk.qcow2#1:/modes").out;
    for letters in ["----------", "-rwsr-xr-x", "-rwxr-sr-x", "-rws--s--x", "drwxrwxrwt", "-rw-r--r-T"] {
        assert!(words.contains(letters), "{letters}: {words}");
    }
    assert!(dir.ok("ls raw#1:/devices/null").out.contains("1, 3"));
}

#[test]
fn bytes_are_those_of_the_kernel() {
    if !able() {
        return;
    }
    let dir = Dir::new();
    divided(&dir, 96, tree::fill);
    let seen = seen(&dir);
    let cat = |args: &str| {
        let output = dir.command(&format!("cat {args}")).output().unwrap();
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    for name in ["0", "1", "60", "100000", "5000000", "comb", "reserved"] {
        let theirs = std::fs::read(seen.path().join("contents").join(name)).unwrap();
        assert!(cat(&format!("disk.qcow2#1:/contents/{name}")) == theirs, "{name}");
    }
    let file = tree::pattern(5_000_000);
    assert_eq!(cat("--offset 4000k --length 10 disk.qcow2#1:/contents/5000000"), file[4_096_000..4_096_010]);
    assert_eq!(cat("--offset 4999990 disk.qcow2#1:/contents/5000000"), file[4_999_990..]);
    // A disk's bytes, and a partition's.
    let raw = std::fs::read(dir.join("raw")).unwrap();
    assert!(cat("disk.qcow2") == raw);
    assert_eq!(cat("--length 2k disk.qcow2#1"), raw[START as usize..START as usize + 2048]);
    dir.fails("cat disk.qcow2#1:/contents", &["is a directory", "portolan ls"]);
    dir.fails("cat --offset 10 disk.qcow2#1:/contents/1", &["1 bytes"]);
    // Whoever has enough may go.
    let mut child =
        dir.command("cat disk.qcow2#1:/contents/hole").stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
