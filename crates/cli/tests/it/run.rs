//! A directory to run commands in.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a command said and with what it ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: &Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What it said, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

/// A scratch directory.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Names of all that is here, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// `portolan`, with arguments split at blanks, here.
    pub(crate) fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
        command.args(args.split(' ')).current_dir(self.path());
        command
    }

    /// Runs a script in `mnt`, a new XFS that can share ranges of files, in a mount table of its own; `$0` is `portolan`.
    /// What it said on standard output.
    #[track_caller]
    pub(crate) fn on_xfs(&self, script: &str) -> String {
        const MADE: &str = "set -e; mkfs.xfs -q -m reflink=1 xfs.img; mkdir mnt; mount -o loop xfs.img mnt";
        std::fs::File::create(self.join("xfs.img")).unwrap().set_len(512 << 20).unwrap();
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", &format!("{MADE}\n{script}"), env!("CARGO_BIN_EXE_portolan")])
            .current_dir(self.path())
            .output()
            .unwrap();
        let ran = Ran::of(&output);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        ran.out
    }

    /// Runs `portolan`.
    pub(crate) fn run(&self, args: &str) -> Ran {
        Ran::of(&self.command(args).output().unwrap())
    }

    /// Runs `portolan`, which must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &str) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "portolan {args}: {}{}", ran.out, ran.err);
        ran
    }

    /// Runs `portolan`, which must fail with 1 and say all of `words`.
    #[track_caller]
    pub(crate) fn fails(&self, args: &str, words: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 1, "portolan {args}: {}{}", ran.out, ran.err);
        for word in words {
            assert!(ran.err.contains(word), "portolan {args}: no {word:?} in {}", ran.err);
        }
        ran
    }

    /// Runs another tool here, which must succeed. Arguments are split at `|` where there is one, else at blanks.
    #[track_caller]
    pub(crate) fn tool(&self, tool: &str, args: &str) -> String {
        let apart = if args.contains('|') { '|' } else { ' ' };
        let output = Command::new(tool).args(args.split(apart)).current_dir(self.path()).output().unwrap();
        let ran = Ran::of(&output);
        assert_eq!(ran.code, 0, "{tool} {args}: {}{}", ran.out, ran.err);
        ran.out
    }

    /// Writes a file of `len` bytes here: 1 MiB pieces, every third one data, the rest holes.
    pub(crate) fn raw(&self, name: &str, len: u64) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::create(self.join(name)).unwrap();
        file.set_len(len).unwrap();
        for (i, at) in (0..len).step_by(1 << 20).enumerate().filter(|(i, _)| i % 3 == 0) {
            let piece: Vec<u8> = (0..(len - at).min(1 << 20)).map(|n| (n / 7 + i as u64) as u8).collect();
            file.write_all_at(&piece, at).unwrap();
        }
    }

    /// Writes 96 MiB of random bytes here, so that compressing them takes a while.
    pub(crate) fn noise(&self, name: &str) {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        })
        .take(96 << 20)
        .collect();
        std::fs::write(self.join(name), noise).unwrap();
    }

    /// A chain: `base.raw` under `mid.qcow2` under `top.qcow2`, each with data, zeros and discards of its own.
    pub(crate) fn chain(&self) {
        self.raw("base.raw", 12 << 20);
        self.tool("qemu-img", "create -q -f qcow2 -F raw -b base.raw mid.qcow2 14M");
        self.tool("qemu-io", "-c|write -P 17 500k 700k|-c|write -z 3M 1M|-c|write -P 3 13M 100k|mid.qcow2");
        self.tool("qemu-img", "create -q -f qcow2 -F qcow2 -b mid.qcow2 top.qcow2 16M");
        self.tool(
            "qemu-io",
            "-c|write -P 99 64k 64k|-c|write -z 1M 512k|-c|discard 6M 1M|-c|write -P 5 15M 1M|top.qcow2",
        );
    }
}

/// How many bytes of a file lie where another file's do, as the file system tells it to `filefrag -v -b4096`.
pub(crate) fn shared(told: &str) -> u64 {
    let lines = told.lines().filter(|line| line.contains("shared"));
    lines.map(|line| line.split(':').nth(3).unwrap().trim().parse::<u64>().unwrap() * 4096).sum()
}
