use super::{REQUIRE, attempt, qemu_img, qemu_io, require, run};

#[test]
fn an_absent_tool_is_a_visible_skip_or_a_failure() {
    let strict = std::env::var_os(REQUIRE).is_some_and(|v| v == "1");
    let outcome = std::panic::catch_unwind(|| require(&["sh", "no-such-tool-anywhere"]));
    assert_eq!(outcome.ok(), if strict { None } else { Some(false) });
    assert!(require(&["sh"]));
}

#[test]
fn failures_are_told_with_what_the_tool_said() {
    assert_eq!(attempt("sh", &["-c", "exit 3"]).status.code(), Some(3));
    let died = std::panic::catch_unwind(|| run("sh", &["-c", "echo out; echo err >&2; exit 1"]));
    let words = *died.unwrap_err().downcast::<String>().unwrap();
    assert!(words.contains("out") && words.contains("err") && words.contains("exit status: 1"), "{words}");
    // More than a pipe holds.
    let long = run("sh", &["-c", "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"]);
    assert_eq!((long.stdout.len(), long.stderr.len()), (300_000, 300_000));
}

#[test]
fn qemu_tools_answer() {
    if !require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let file = std::env::temp_dir().join(format!("testkit-peer-{}.qcow2", std::process::id()));
    let name = file.to_string_lossy().into_owned();
    qemu_img(&["create", "-q", "-f", "qcow2", &name, "1M"]);
    qemu_io("qcow2", &file, &["write -P 7 4096 512", "read -P 7 4096 512"]);
    assert!(qemu_img(&["info", "--output=json", &name]).contains("\"virtual-size\": 1048576"));
    std::fs::remove_file(file).unwrap();
}
