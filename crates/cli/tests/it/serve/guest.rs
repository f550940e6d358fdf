//! A guest under emulation: it boots from what is served, works there, and powers off.

use super::Server;
use crate::directory::{awkward, differences};
use crate::run::Dir;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testkit::peer;

/// How long a guest may take, on a machine that has other things to do.
const LONGEST: Duration = Duration::from_secs(150);

/// How high the guest counts.
const COUNT: u64 = 300_000;

/// The guest's first process: finds the disk, and goes on from there.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /dev /mnt
mount -t proc proc /proc
mount -t devtmpfs dev /dev
# Which of the drivers needs which is theirs to know.
for round in 1 2 3; do
    for module in /modules/*; do insmod $module 2>/dev/null; done
done
mount -t ext4 /dev/vda /mnt && cp /work /mnt/work && exec switch_root /mnt /bin/sh /work
echo 'GUEST: no root'
poweroff -f
";

/// What is done at the end: everything is on the disk before the power goes.
const REST: &str = "
sync
mount -o remount,ro / && echo 'GUEST: at rest'
echo o > /proc/sysrq-trigger
sleep 60
";

/// The guest writes: many small files and a large one, and then it deletes, and gives the room back. And it copies
/// the disk of a directory, and sums up what it sees there when it reads Joliet, and when it reads ISO 9660 alone.
fn writing() -> String {
    format!(
        "mount -t proc proc /proc
mount -t devtmpfs dev /dev
mkdir /cd
mount -t iso9660 -o ro /dev/vdb /cd && cp -a /cd /copied && umount /cd && echo 'GUEST: copied'
for how in utf8,check=strict nojoliet; do
    mount -t iso9660 -o ro,norock,$how /dev/vdb /cd && cd /cd
    find . -type f -size +0 -exec sha256sum '{{}}' + > /sums.$how
    cd / && umount /cd && echo \"GUEST: $how\"
done
seq 1 {COUNT} > /numbers
cp -a /usr/share /copy
sync
diff -r /usr/share /copy && echo 'GUEST: same'
rm -rf /copy/doc /copy/locale /copy/man
sync
fstrim / && echo 'GUEST: trimmed'
echo words >> /numbers
{REST}"
    )
}

/// The guest looks at what it wrote the last time.
fn reading() -> String {
    format!(
        "mount -t proc proc /proc
[ $(tail -n 1 /numbers) = words ] && [ $(wc -l < /numbers) = {} ] && echo 'GUEST: numbers'
diff -r /usr/share/perl5 /copy/perl5 && [ ! -e /copy/doc ] && echo 'GUEST: same'
{REST}",
        COUNT + 1
    )
}

/// The init file system: a shell, the disk's drivers, and what to do.
fn initrd(dir: &Dir, kept: &Path, work: &str) -> PathBuf {
    let tree = dir.join("initrd");
    let _ = std::fs::remove_dir_all(&tree);
    std::fs::create_dir_all(tree.join("bin")).unwrap();
    std::fs::create_dir(tree.join("modules")).unwrap();
    std::fs::copy(kept.join("busybox"), tree.join("bin/busybox")).unwrap();
    for module in std::fs::read_dir(kept.join("modules")).unwrap() {
        let module = module.unwrap();
        std::fs::copy(module.path(), tree.join("modules").join(module.file_name())).unwrap();
    }
    std::fs::write(tree.join("work"), work).unwrap();
    std::fs::write(tree.join("init"), INIT).unwrap();
    dir.tool("chmod", "755 initrd/init initrd/bin/busybox");
    let archive = dir.join("initrd.cpio");
    let pack = "find . | bin/busybox cpio -o -H newc > ../initrd.cpio";
    let packed = Command::new("sh").args(["-c", pack]).current_dir(tree).output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    archive
}

/// Boots a guest whose disk is at this address, and maybe a CD at another; what it said until it powered off.
#[track_caller]
fn boot(dir: &Dir, kept: &Path, uri: &str, cd: Option<&str>, work: &str) -> String {
    let initrd = initrd(dir, kept, work);
    let console = dir.join("console");
    let drive = format!("file={uri},format=raw,if=virtio,cache=none,discard=unmap");
    let mut command = Command::new(kept.join("emulator"));
    command
        .args("-nodefaults -no-user-config -accel tcg -cpu max -m 256 -no-reboot -display none".split(' '));
    command.arg("-serial").arg(format!("file:{}", console.display()));
    command.arg("-kernel").arg(kept.join("vmlinuz")).arg("-initrd").arg(initrd);
    command.args(["-append", "console=ttyS0 quiet panic=-1", "-drive", &drive]);
    if let Some(cd) = cd {
        command.arg("-drive").arg(format!("file={cd},format=raw,if=virtio,readonly=on"));
    }
    let said = File::create(dir.join("emulator.err")).unwrap();
    let mut guest = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = guest.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > LONGEST {
            guest.kill().unwrap();
            guest.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let heard = String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned();
    let said = std::fs::read_to_string(dir.join("emulator.err")).unwrap();
    assert!(status.is_some_and(|s| s.success()), "{status:?}: {said}{heard}");
    assert!(heard.contains("GUEST: at rest"), "{said}{heard}");
    heard
}

/// What the guest copied of the directory's disk into its own, taken out of that again, is the directory; and it saw
/// each file, by whatever name, when it read the names of others.
fn what_the_guest_saw_is_the_directory(dir: &Dir) {
    dir.ok("extract -q --allow-any guest.qcow2:/copied -o copied");
    assert_eq!(differences(dir, "tree", "copied"), "");
    let sums = |listed: &str| {
        let mut sums: Vec<String> = listed.lines().map(|line| line[..64].to_owned()).collect();
        sums.sort();
        sums
    };
    let wanted = sums(&dir.tool("sh", "-c|find tree -type f -size +0 -exec sha256sum '{}' +"));
    for how in ["utf8,check=strict", "nojoliet"] {
        let seen = dir.ok(&format!("cat --allow-any guest.qcow2:/sums.{how}")).out;
        assert!(wanted == sums(&seen), "{how}: {seen}");
        assert!(how == "nojoliet" || seen.contains("./Grüße\n") && seen.contains("./日本語\n"), "{seen}");
    }
}

#[test]
fn a_guest_boots_writes_and_powers_off() {
    // Beside where the command is built: `debug` or `release`.
    let kept = Path::new(env!("CARGO_BIN_EXE_portolan")).ancestors().nth(2).unwrap().join("guest");
    let files =
        ["emulator", "vmlinuz", "modules/isofs.ko", "busybox", "root.raw"].map(|name| kept.join(name));
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    if !peer::require(&["e2fsck", "debugfs", "qemu-img"])
        || !peer::require_files(&files, "`cargo xtask test peers`, as root")
    {
        return;
    }
    let dir = Dir::new();
    let root = kept.join("root.raw").display().to_string();
    let before = std::fs::metadata(&root).unwrap().modified().unwrap();
    let server = Server::start(&dir, "s", &format!("-q --json --overlay guest.qcow2 -f raw {root}"));
    awkward(&dir.join("tree"));
    // Linux reads no more than 253 bytes of a name.
    let long = "long ".repeat(51);
    std::fs::rename(dir.join("tree").join(&long), dir.join("tree").join(&long[..253])).unwrap();
    let directory = Server::start(&dir, "cd", "-q tree");
    let heard = boot(&dir, &kept, &server.uri(""), Some(&directory.uri("")), &writing());
    assert!(heard.contains("GUEST: same") && heard.contains("GUEST: trimmed"), "{heard}");
    directory.end();
    let counted = server.end().json();
    for what in ["reads", "writes", "flushes", "zeroes"] {
        assert!(counted[what].as_u64().unwrap() > 0, "{what} in {counted}");
    }
    assert_eq!((&counted["errors"], &counted["broken"]), (&0.into(), &0.into()), "{counted}");
    dir.tool("qemu-img", "check -q guest.qcow2");
    what_the_guest_saw_is_the_directory(&dir);
    dir.ok("convert -q --allow-any guest.qcow2 after.raw");
    dir.tool("e2fsck", "-fn after.raw");
    dir.tool("debugfs", "-R|dump /numbers numbers|after.raw");
    let numbers: String = (1..=COUNT).map(|n| format!("{n}\n")).collect();
    assert!(std::fs::read(dir.join("numbers")).unwrap() == format!("{numbers}words\n").into_bytes());
    assert_eq!(std::fs::metadata(&root).unwrap().modified().unwrap(), before);

    // Alone, on a port, and read by the one who wrote it.
    dir.ok("convert -q -f raw after.raw alone.qcow2");
    let server = super::on_a_port(&dir, "p", "alone.qcow2");
    let heard = boot(&dir, &kept, &server.uri(""), None, &reading());
    assert!(heard.contains("GUEST: numbers") && heard.contains("GUEST: same"), "{heard}");
    server.end();
    dir.tool("qemu-img", "check -q alone.qcow2");
    dir.ok("convert -q --force alone.qcow2 after.raw");
    dir.tool("e2fsck", "-fn after.raw");
}
