use super::*;
use proptest::prelude::*;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

fn spec(text: &str) -> Spec {
    Spec::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn with(path: &str, steps: Vec<Step>) -> Spec {
    Spec { steps, ..Spec::file(path) }
}

fn version(name: &str) -> Step {
    Step::Version(name.into())
}

fn inside(path: &str) -> Step {
    Step::Path(path.into())
}

#[test]
fn plain_names_stay_plain() {
    for name in [
        "disk.qcow2",
        "/dev/vg/root",
        "/home/me@work/disk.qcow2",
        "disk#2.img",
        "a #b",
        "#x",
        "12:30.img",
        "trailing@",
        "back\\slash",
        "C:foo",
        "a://b/c".strip_prefix("a://").unwrap(),
    ] {
        assert_eq!(spec(name), Spec::file(name), "{name}");
        assert_eq!(spec(name).to_string(), name);
    }
}

#[test]
fn suffixes_chain_from_left_to_right() {
    assert_eq!(spec("d.qcow2@before"), with("d.qcow2", vec![version("before")]));
    assert_eq!(spec("d.img#2"), with("d.img", vec![Step::Partition(2)]));
    assert_eq!(
        spec("d@monday#1:/vm/getty@x.img:/etc/hosts#3"),
        with(
            "d",
            vec![
                version("monday"),
                Step::Partition(1),
                inside("/vm/getty@x.img"),
                inside("/etc/hosts"),
                Step::Partition(3)
            ]
        )
    );
    assert_eq!(spec("me@work@snap"), with("me@work", vec![version("snap")]));
    assert_eq!(spec("/a@b/c@d"), with("/a@b/c", vec![version("d")]));
}

#[test]
fn odd_names_are_written_with_file_or_backslashes() {
    assert_eq!(spec("file:disk#2@x:/y"), Spec::file("disk#2@x:/y"));
    let addressed = spec("file:///a/b").location;
    assert_eq!(addressed.to_string(), "/a/b");
    assert_eq!(spec(r"disk\#2"), Spec::file("disk#2"));
    assert_eq!(spec(r"me\@work.qcow2@snap\/1"), with("me@work.qcow2", vec![version("snap/1")]));
    assert_eq!(spec(r"json\:x"), Spec::file("json:x"));
    assert_eq!(Spec::file("disk#2").to_string(), r"disk\#2");
}

#[test]
fn addresses() {
    assert_eq!(
        spec("nbd://h:1/x@v"),
        Spec { steps: vec![version("v")], ..Spec::of(Location::Nbd("nbd://h:1/x".into())) }
    );
    assert_eq!(spec("http://me@h").location, Location::Http("http://me@h".into()));
    assert_eq!(spec("HTTPS://h/a/@b/c#2").location, Location::Http("https://h/a/@b/c".into()));
    let tls = spec("nbds+unix:///n?socket=/run/s.sock&tls-certificates=/etc/pki#1");
    assert!(matches!(tls.location, Location::Nbd(address) if address.ends_with("/etc/pki")));
    let unix = spec("nbd+unix:///n?socket=/run/s.sock#1");
    assert_eq!(unix.location, Location::Nbd("nbd+unix:///n?socket=/run/s.sock".into()));
    assert_eq!(unix.steps, [Step::Partition(1)]);
}

#[test]
fn json_as_we_and_as_qemu_write_it() {
    let ours = spec(
        r#"json:{"file": "a#1", "format": "raw", "options": {"offset": 512}, "steps": [{"version": "v"}]}#2"#,
    );
    assert_eq!(ours.location, Location::File("a#1".into()));
    assert_eq!((ours.format.as_deref(), ours.options["offset"].as_str()), (Some("raw"), "512"));
    assert_eq!(ours.steps, [version("v"), Step::Partition(2)]);
    let qemu = spec(r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/a"}}"#);
    assert_eq!((qemu.format.as_deref(), &qemu.location), (Some("qcow2"), &Location::File("/a".into())));
    let flat =
        spec(r#"json:{"driver":"raw","offset":"64k","file.driver":"host_device","file.filename":"/dev/x"}"#);
    assert_eq!((flat.options["offset"].as_str(), &flat.location), ("64k", &Location::File("/dev/x".into())));
    let nbd = spec(r#"json:{"driver":"nbd","server":{"type":"unix","path":"/run/a b"},"export":"x"}"#);
    assert_eq!(nbd.location, Location::Nbd("nbd+unix:///x?socket=/run/a%20b".into()));
}

#[test]
fn what_names_nothing_is_refused() {
    for text in [
        "",
        "@x",
        "#2",
        ":/x",
        "file:",
        "a#0",
        "a#99999999999",
        "ssh://h/x",
        "nbd://",
        "a#2@b/c",
        "json:[]",
        "json:{}",
        "json:{\"file\":\"a\",\"odd\":1}",
        "json:{\"file\":\"a\"}x",
        "http://h/a b",
        "a\0b",
        "json:{\"file\":\"a\",\"url\":\"http://x/\"}",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"vmdk\",\"file\":\"x\"}}",
    ] {
        assert!(Spec::parse(text).is_err(), "{text:?} was read as {:?}", Spec::parse(text));
    }
    let deep = format!("json:{}{}", "{\"file\":".repeat(100), "}".repeat(100));
    assert!(Spec::parse(deep).is_err());
    assert!(Spec::parse("a#1".to_owned() + &"#1".repeat(40)).is_err());
    assert!(Spec::parse("x".repeat(MAX_SPEC + 1)).is_err());
}

#[test]
fn a_name_that_is_not_utf8_comes_back() {
    let odd = OsString::from_vec(b"\xffdisk@2\xfe#1".to_vec());
    let spec = Spec { steps: vec![Step::Partition(7)], ..Spec::file(odd) };
    assert_eq!(Spec::parse(spec.to_os_string()).unwrap(), spec);
}

#[test]
fn a_path_of_two_slashes_is_no_address() {
    let odd = OsString::from_vec(b"//\xea".to_vec());
    let spec = Spec { steps: vec![Step::Path(odd.into())], ..Spec::file("js") };
    assert_eq!(Spec::parse(spec.to_os_string()).unwrap(), spec);
}

#[test]
fn the_grammar_fits_a_terminal() {
    assert!(GRAMMAR.lines().all(|l| l.chars().count() <= 100));
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        "[a#@:/\\\\1 ]{1,8}".prop_map(Step::Version),
        (1u32..).prop_map(Step::Partition),
        "/[a#@:/\\\\1]{0,8}".prop_map(|p| Step::Path(p.into())),
    ]
}

fn any_location() -> impl Strategy<Value = Location> {
    prop_oneof![
        "(file:|json:|nbd://|)[a-c#@:/\\\\1.]{1,12}".prop_map(|p| Location::File(p.into())),
        "nbd://[a@:1]{1,4}(/[a#@:1/]{0,8})?".prop_map(Location::Nbd),
        "https?://[a@:1]{1,4}(/[a#@:1/?]{0,8})?".prop_map(Location::Http),
    ]
}

proptest! {
    #[test]
    fn every_spec_reads_back_as_itself(
        location in any_location(),
        format in proptest::option::of("[a-z]{1,4}"),
        options in proptest::collection::btree_map("[a-z]{1,3}", ".{0,4}", 0..3),
        steps in proptest::collection::vec(any_step(), 0..4),
    ) {
        let spec = Spec { location, format, options, steps };
        let text = spec.to_os_string();
        prop_assert_eq!(Spec::parse(&text).map_err(|e| TestCaseError::fail(format!("{text:?}: {e}")))?, spec);
    }

    #[test]
    fn what_is_read_can_be_written_and_read_again(text in "[a#@:/\\\\12. {}\"fj]{0,24}") {
        if let Ok(spec) = Spec::parse(&text) {
            prop_assert_eq!(Spec::parse(spec.to_os_string()).ok(), Some(spec));
        }
    }
}
