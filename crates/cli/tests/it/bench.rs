use crate::run::Dir;

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
    dir.fails("bench --write -f raw absent", &["absent"]);
}
