use crate::run::Dir;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server of somebody else's, killed when dropped.
struct Server(Child);

impl Server {
    /// Starts one that will listen on the socket `s`: its path takes the place of `{}`.
    fn start(dir: &Dir, tool: &str, args: &str) -> Server {
        let mut command = Command::new(tool);
        let args = args.replace("{}", &dir.join("s").display().to_string());
        command.args(args.split(' ')).current_dir(dir.path()).stdin(Stdio::null());
        let server = Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let began = Instant::now();
        while std::os::unix::net::UnixStream::connect(dir.join("s")).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "{tool} does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn loads_are_measured() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 64M");
    let wrote = dir
        .ok("bench --json --write --operations 200 --size 64k --depth 3 --flush-every 50 disk.qcow2")
        .json();
    assert_eq!((&wrote["operations"], &wrote["bytes"]), (&200.into(), &(200 << 16).into()));
    let pid = std::process::id();
    let read =
        dir.ok(&format!("bench --json --operations 500 --hot 80/20 --server-pid {pid} disk.qcow2")).json();
    assert!(read["iops"].as_f64().unwrap() > 0.0 && read["peak-rss"].as_u64().unwrap() > 0);
    assert!(read["server-cpu-us-per-request"].is_number());
    let told = dir.ok("bench --operations 10 --pattern sequential --size 1M disk.qcow2").out;
    assert!(told.contains("latency") && told.contains("MB/s"), "{told}");
    if testkit::peer::require(&["qemu-img"]) {
        dir.tool("qemu-img", "check -q disk.qcow2");
    }
    dir.fails("bench --size 1G disk.qcow2", &["requests"]);
    for none in ["--seconds 0", "--operations 0", "--write --flush-every 0", "--connections 0x"] {
        assert_eq!(dir.run(&format!("bench {none} disk.qcow2")).code, 2, "{none}");
    }
    dir.fails("bench --write -f raw absent", &["absent"]);
}

#[test]
fn servers_are_loaded() {
    if !testkit::peer::require(&["qemu-img", "qemu-nbd", "nbdkit"]) {
        return;
    }
    let servers = [
        ("qemu-nbd", "-t -e 4 -k {} -f raw disk.raw"),
        ("qemu-nbd", "-t -e 4 -k {} -f qcow2 disk.qcow2"),
        ("nbdkit", "-f -U {} file disk.raw"),
    ];
    for (tool, args) in servers {
        let dir = Dir::new();
        dir.tool("qemu-img", "create -q -f raw disk.raw 16M");
        dir.tool("qemu-img", "create -q -f qcow2 disk.qcow2 16M");
        let server = Server::start(&dir, tool, args);
        let pid = server.0.id();
        let load = |more: &str| dir.ok(&format!("bench --json {more} nbd+unix:///?socket=s")).json();
        let all = "--pattern sequential --operations 4096 --depth 32";
        let wrote = load(&format!("{all} --write --flush-every 512 -f raw"));
        assert_eq!(wrote["operations"], 4096, "{tool} {args}");
        assert_eq!(wrote["flushes"], 8);
        let read = load(&format!("--verify --seconds 1 --depth 64 --connections 3 --server-pid {pid}"));
        assert!(read["operations"].as_u64().unwrap() > 1000, "{tool} {args}: {read}");
        assert!(read["server-cpu-us-per-request"].as_f64().unwrap() > 0.0, "{read}");
        assert!(read["cpu-us-per-request"].as_f64().unwrap() > 0.0, "{read}");
        load(&format!("--verify {all} --structured -f raw"));
        dir.fails("bench --verify --seed 2 nbd+unix:///?socket=s", &["not what was written"]);
        // What may be an image of a format is written only as somebody says it is.
        dir.fails("bench --write --operations 1 nbd+unix:///?socket=s", &["raw"]);
    }
}

#[test]
fn what_is_hot_is_refused_where_nothing_is() {
    let dir = Dir::new();
    dir.raw("a.raw", 1 << 20);
    dir.fails("bench --hot 80/20 --pattern sequential --operations 1 a.raw", &["--hot"]);
    dir.ok("bench --hot 80/20 --operations 1 a.raw");
}
