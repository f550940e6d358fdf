//! Directories as disks, and disks inside disks.

use crate::run::Dir;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use testkit::peer;

/// A directory of what is awkward.
pub(crate) fn awkward(at: &Path) {
    let deep: String = (0..20).map(|i| format!("level {i}/")).collect();
    fs::create_dir_all(at.join(&deep)).unwrap();
    fs::write(at.join(&deep).join("bottom"), "deep\n").unwrap();
    fs::create_dir(at.join("empty directory")).unwrap();
    let content = |n: usize| (0..n).map(|i| (i / 3 % 251) as u8).collect::<Vec<u8>>();
    let long = "long ".repeat(51);
    for (name, len) in [("empty", 0), ("one", 1), ("sector", 2048), ("more", 2049), ("large", 3_000_001)] {
        fs::write(at.join(name), content(len)).unwrap();
    }
    for name in ["Grüße", "日本語", "UPPER", "upper", "a.b.c", ".hidden", "dot.", "semi;1", &long] {
        fs::write(at.join(name), name.as_bytes()).unwrap();
    }
    fs::set_permissions(at.join("one"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::hard_link(at.join("large"), at.join("empty directory/../large again")).unwrap();
    symlink("../large", at.join("short link")).unwrap();
    symlink(format!("/{}", "x/".repeat(400)), at.join("long link")).unwrap();
    fs::create_dir(at.join("many")).unwrap();
    (0..700).for_each(|i| fs::write(at.join(format!("many/file {i}")), format!("{i}")).unwrap());
}

/// Says where two trees differ in names, kinds, modes, times and bytes; nothing if they do not.
pub(crate) fn differences(dir: &Dir, one: &str, other: &str) -> String {
    let list = "find . -mindepth 1 -printf '%P %y %m %l ' '(' -type l -o -type d -o -printf '%s %Ts' ')' -printf '\\n' | sort";
    let script = format!(
        "diff -r --no-dereference {one} {other} >&2; (cd {one}; {list}) > one.txt; (cd {other}; {list}) > other.txt; diff one.txt other.txt"
    );
    let out = Command::new("sh").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

#[test]
fn a_directory_is_an_iso_that_xorriso_takes_apart_again() {
    if !peer::require(&["xorriso", "nbdcopy"]) {
        return;
    }
    let dir = Dir::new();
    awkward(&dir.join("tree"));
    dir.ok("convert -q tree made.iso");
    // The same over the wire, from a written chart, and closed and opened in between.
    dir.ok("chart -o tree.chart tree");
    assert!(fs::metadata(dir.join("tree.chart")).unwrap().len() < 400_000);
    dir.ok("compare made.iso tree.chart");
    dir.ok("compare made.iso tree");
    dir.tool("xorriso", "-osirrox|on|-indev|made.iso|-extract|/|out");
    assert_eq!(differences(&dir, "tree", "out"), "");
    // Two names of one file are one place, and one file again to whoever looks for that.
    let hard = "-hardlinks|on|-osirrox|on:sort_lba_on|-indev|made.iso|-extract|/|linked";
    dir.tool("xorriso", hard);
    let inode = |name: &str| fs::metadata(dir.join(name)).unwrap().ino();
    assert_eq!(inode("linked/large"), inode("linked/large again"));
    assert_eq!(differences(&dir, "tree", "linked"), "");
    let info = dir.ok("info --json tree").json();
    assert_eq!(info["format"], "iso9660");
    let words = dir.ok("info tree").out;
    assert!(words.contains("iso9660, computed; files: 7") && !words.contains("  file "), "{words}");
}

#[test]
fn no_content_is_read_to_serve_a_directory_or_to_chart_it() {
    if !peer::require(&["strace"]) {
        return;
    }
    let dir = Dir::new();
    awkward(&dir.join("tree"));
    let program = env!("CARGO_BIN_EXE_portolan");
    let traced = "-f -e trace=openat,openat2,open -o trace";
    for command in ["info tree", "chart -o tree.chart tree", "chart tree"] {
        dir.tool("strace", &format!("{traced} {program} {command}"));
        opens_no_file(&dir, command);
    }
    if peer::require(&["nbdinfo"]) {
        // A client that looks at the disk's beginning, and where it has data. The server keeps its number under -D.
        for ask in ["", "--map "] {
            let told = dir.tool("nbdinfo", &format!("{ask}-- [ strace -D {traced} {program} serve tree ]"));
            assert!(told.contains("ISO 9660") || told.contains("data"), "{told}");
            opens_no_file(&dir, "serve tree");
        }
    }
}

/// That a trace, which may still be being written, names the directories and none of the files.
fn opens_no_file(dir: &Dir, command: &str) {
    let began = std::time::Instant::now();
    let trace = loop {
        let trace = fs::read_to_string(dir.join("trace")).unwrap();
        // Threads end too: what counts is the process, which is in the first line.
        let process = trace.split(' ').next().unwrap();
        if trace.lines().any(|line| line.starts_with(process) && line.contains("+++")) {
            break trace;
        }
        assert!(began.elapsed().as_secs() < 10, "{command} has not ended: {trace}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    let names = ["\"large\"", "\"one\"", "\"sector\"", "\"bottom\"", "file 1\"", "/large\""];
    let opened: Vec<&str> = trace.lines().filter(|l| names.iter().any(|n| l.contains(n))).collect();
    assert!(opened.is_empty() && trace.contains("level 3"), "{command}: {opened:?}");
    fs::remove_file(dir.join("trace")).unwrap();
}

#[test]
fn a_file_that_changes_underneath_is_an_error_by_its_name_and_nothing_else_suffers() {
    if !peer::require(&["nbdcopy", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    awkward(&dir.join("tree"));
    dir.ok("chart -o tree.chart tree");
    let rows = dir.ok("chart --json tree").json();
    let at = |name: &str| {
        let row =
            rows.as_array().unwrap().iter().find(|r| r["file"].as_str().is_some_and(|f| f.ends_with(name)));
        row.unwrap_or_else(|| panic!("no {name} in {rows}"))["start"].as_u64().unwrap()
    };
    let (large, sector) = (at("/large"), at("/sector"));
    fs::write(dir.join("tree/large"), "something else").unwrap();
    // From the chart as from a server that began before.
    let ran = dir.run("convert tree.chart out.iso");
    assert!(ran.code == 1 && ran.err.contains("large"), "{}", ran.err);
    assert!(!dir.join("out.iso").exists());
    let read = |at: u64| {
        let script = format!("qemu-io -r -f raw -c 'read {at} 2048' nbd+unix:///?socket=x.sock");
        let out = Command::new("sh").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    };
    let server = crate::serve::Server::start(&dir, "x", "tree.chart");
    let said = read(large);
    assert!(said.contains("Input/output error"), "{said}");
    assert!(read(sector).contains("read 2048/2048"));
    // Confinement: a directory on the way that became a link leads nowhere.
    fs::rename(dir.join("tree/many"), dir.join("elsewhere")).unwrap();
    symlink("../elsewhere", dir.join("tree/many")).unwrap();
    assert!(read(at("/file 7")).contains("Input/output error"));
    // Who serves is told which files these were.
    let said = server.end().err;
    assert!(said.contains("tree/large: ") && said.contains("tree/many/file 7: "), "{said}");
}

#[test]
fn many_clients_read_thousands_of_files_through_few_descriptors() {
    if !peer::require(&["nbdcopy"]) {
        return;
    }
    let dir = Dir::new();
    for i in 0..3000 {
        let inside = dir.join(&format!("tree/{}", i % 7));
        fs::create_dir_all(&inside).unwrap();
        fs::write(inside.join(i.to_string()), vec![i as u8; 100 + i]).unwrap();
    }
    dir.ok("convert -q tree wanted.iso");
    let serve = "serve -q --listen unix:few.sock --pid-file few.pid tree";
    let limited = format!("ulimit -n 64; exec {} {serve}", env!("CARGO_BIN_EXE_portolan"));
    let mut command = Command::new("sh");
    command.args(["-c", &limited]).current_dir(dir.path());
    let server = crate::serve::Server::of(&dir, "few", &mut command);
    let copy = |i: i32| {
        let words = format!("nbdcopy --connections=4 'nbd+unix:///?socket=few.sock' copy.{i}");
        Command::new("sh").args(["-c", &words]).current_dir(dir.path()).spawn().unwrap()
    };
    let copies: Vec<_> = (0..6).map(copy).collect();
    for (i, mut copy) in copies.into_iter().enumerate() {
        assert!(copy.wait().unwrap().success());
        dir.tool("cmp", &format!("wanted.iso copy.{i}"));
    }
    let said = server.end().err;
    assert_eq!(said, "");
}

/// So many files, and as many bytes for each at most: of names of ten, which are among them.
const FILES: u64 = 100_000;
const BYTES_A_FILE: u64 = 140;

#[test]
fn many_files_take_little_memory() {
    let dir = Dir::new();
    let quick = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let [none, many] = ["none", "many"].map(|name| quick.path().join(name));
    fs::create_dir(&none).unwrap();
    for i in 0..FILES {
        let inside = many.join((i / 1000).to_string());
        if i % 1000 == 0 {
            fs::create_dir_all(&inside).unwrap();
        }
        fs::File::create(inside.join(format!("{i:010}"))).unwrap().set_len(100).unwrap();
    }
    // All that the server ever had.
    let most = |tree: &Path| {
        let server = crate::serve::Server::start(&dir, "m", &format!("-q {}", tree.display()));
        let pid = fs::read_to_string(dir.join("m.pid")).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let most: u64 = most.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        server.end();
        most << 10
    };
    let each = (most(&many) - most(&none)) / FILES;
    assert!(each < BYTES_A_FILE, "{each} bytes for each of {FILES} files");
}

/// Makes images of a directory where ranges of files can be shared.
const ON_XFS: &str = r#"mv tree mnt
cd mnt
for how in never auto always; do
    "$0" convert --json --reflink $how tree $how.iso > ../$how.json
    cmp $how.iso never.iso
    filefrag -v -b4096 $how.iso > ../$how.places
done
xorriso -osirrox on -indev always.iso -extract / out 2>/dev/null
diff -r tree out
"#;

#[test]
fn an_image_of_a_directory_shares_its_files_where_the_file_system_can() {
    if !peer::require(&["mkfs.xfs", "unshare", "root", "filefrag", "xorriso"]) {
        return;
    }
    let dir = Dir::new();
    let noise = |len: usize| (0..len).map(|i| (i * i / 7 % 253) as u8 + 1).collect::<Vec<u8>>();
    fs::create_dir_all(dir.join("tree/in")).unwrap();
    // Two that fill their last sector, so that they are next to each other on the disk; and what is shorter than pays.
    for (name, blocks, more) in
        [("a", 300, 0), ("b", 200, 0), ("in/c", 40, 1000), ("in/d", 10, 100), ("in/e", 1, 0), ("f", 0, 77)]
    {
        fs::write(dir.join("tree").join(name), noise(blocks * 4096 + more)).unwrap();
    }
    dir.on_xfs(ON_XFS);
    for (how, blocks) in [("never", 0), ("auto", 540), ("always", 551)] {
        let report: serde_json::Value =
            serde_json::from_slice(&fs::read(dir.join(&format!("{how}.json"))).unwrap()).unwrap();
        assert_eq!(report["cloned"], blocks * 4096, "{how}: {report}");
        let places = fs::read_to_string(dir.join(&format!("{how}.places"))).unwrap();
        assert_eq!(crate::run::shared(&places), blocks * 4096, "{how}: {places}");
    }
}

#[test]
fn what_is_in_a_directory_is_no_file_inside_a_disk() {
    let dir = Dir::new();
    std::fs::create_dir(dir.join("photos")).unwrap();
    std::fs::write(dir.join("photos/one"), "one").unwrap();
    for command in ["ls photos", "ls photos:/one", "cat photos:/one", "extract photos -o out"] {
        dir.fails(command, &["photos", "is a directory of this machine"]);
    }
}

#[test]
fn what_may_not_be_read_is_named_and_how_to_leave_it_out() {
    use std::os::unix::process::CommandExt;
    if !peer::require(&["root"]) {
        return;
    }
    let dir = Dir::new();
    // Nobody can reach where the program was built.
    fs::copy(env!("CARGO_BIN_EXE_portolan"), dir.join("portolan")).unwrap();
    fs::create_dir(dir.join("tree")).unwrap();
    for name in ["open", "shut"] {
        fs::write(dir.join("tree").join(name), name).unwrap();
    }
    fs::set_permissions(dir.join("tree/shut"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (tree, from) in [("tree", "."), (".", "tree"), ("tree/", ".")] {
        let run = |args: &[&str]| {
            let mut command = Command::new(dir.join("portolan"));
            let out =
                command.args(args).current_dir(dir.join(from)).uid(65_534).gid(65_534).output().unwrap();
            (out.status.code(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
        };
        let option = "skip-unreadable=on";
        let (code, said) = run(&["info", tree]);
        assert_eq!(code, Some(1));
        assert!(said.contains("shut") && said.contains(&format!("--option {option} leaves out")), "{said}");
        let (code, said) = run(&["info", "--option", option, tree]);
        assert!(code == Some(0) && said.contains("1 left out"), "{said}");
    }
    let server = crate::serve::Server::start(&dir, "x", "--option volume=NAME tree");
    let said = server.end().out;
    assert!(said.starts_with("Serving tree (iso9660, files: 2, directories: 1): "), "{said}");
}
