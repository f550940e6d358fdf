use super::*;
use chart::Kind;
use std::fs;
use std::os::unix::fs::symlink;

/// `images/{vm,base,sub/deep}` and, outside, `secret`.
fn tree() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("images/sub")).unwrap();
    for name in ["images/vm", "images/base", "images/sub/deep", "secret"] {
        fs::write(root.join(name), name).unwrap();
    }
    (dir, root)
}

fn vm(root: &Path) -> Location {
    Location::File(root.join("images/vm"))
}

fn admit(gate: &Gate, root: &Path, name: impl AsRef<OsStr>) -> Result<Admitted> {
    gate.pass(&vm(root))?.admit(&vm(root), name, "backing file")
}

fn kind(result: Result<Admitted>) -> Kind {
    result.unwrap_err().kind()
}

#[test]
fn beside_and_below_are_open_and_nothing_else() {
    let (_dir, root) = tree();
    let gate = Gate::beside();
    for name in ["base", "sub/deep", "./sub/../base", "file:base", r#"json:{"file":"base"}"#] {
        let file = admit(&gate, &root, name).unwrap().open(Options::default()).unwrap();
        assert!(chart::Source::len(&file) > 0, "{name}");
    }
    admit(&gate, &root, root.join("images/base")).unwrap();
    for name in
        ["../secret", "/etc/passwd", "sub/../../secret", "file:/etc/passwd", r#"json:{"file":"/etc/passwd"}"#]
    {
        assert_eq!(kind(admit(&gate, &root, name)), Kind::Denied, "{name}");
    }
    assert_eq!(kind(admit(&gate, &root, "absent")), Kind::NotFound);
}

#[test]
fn links_count_by_where_they_lead() {
    let (_dir, root) = tree();
    symlink("../secret", root.join("images/out")).unwrap();
    symlink("base", root.join("images/in")).unwrap();
    symlink("..", root.join("images/up")).unwrap();
    let gate = Gate::beside();
    assert_eq!(kind(admit(&gate, &root, "out")), Kind::Denied);
    assert_eq!(kind(admit(&gate, &root, "up/secret")), Kind::Denied);
    admit(&gate, &root, "in").unwrap().open(Options::default()).unwrap();
}

#[test]
fn a_link_to_an_image_stands_beside_both() {
    let (_dir, root) = tree();
    symlink("images/vm", root.join("link")).unwrap();
    let link = Location::File(root.join("link"));
    let pass = Gate::beside().pass(&link).unwrap();
    pass.admit(&link, "secret", "backing file").unwrap();
    pass.admit(&link, "images/base", "backing file").unwrap();
    assert_eq!(kind(pass.admit(&link, "/etc/passwd", "backing file")), Kind::Denied);
}

#[test]
fn a_link_that_appears_after_the_check_is_not_followed() {
    let (_dir, root) = tree();
    let admitted = admit(&Gate::beside(), &root, "sub/deep").unwrap();
    fs::rename(root.join("images/sub"), root.join("images/was")).unwrap();
    fs::create_dir(root.join("elsewhere")).unwrap();
    fs::write(root.join("elsewhere/deep"), "foreign").unwrap();
    symlink("../elsewhere", root.join("images/sub")).unwrap();
    assert_eq!(admitted.open(Options::default()).err().unwrap().kind(), Kind::Denied);
}

#[test]
fn what_the_user_allows_is_allowed() {
    let (_dir, root) = tree();
    admit(&Gate::beside().allow(&root), &root, "../secret").unwrap().open(Options::default()).unwrap();
    assert_eq!(kind(admit(&Gate::beside().allow(&root), &root, "/etc/passwd")), Kind::Denied);
    assert!(Gate::beside().allow(root.join("absent")).pass(&vm(&root)).is_err());
    admit(&Gate::any(), &root, "/etc/passwd").unwrap().open(Options::default()).unwrap();
}

#[test]
fn servers_are_refused_unless_anything_goes() {
    let (_dir, root) = tree();
    for name in ["nbd://h/x", "http://h/x", "nbd+unix:///?socket=s", r#"json:{"driver":"nbd","host":"h"}"#] {
        assert_eq!(kind(admit(&Gate::beside().allow("/"), &root, name)), Kind::Denied, "{name}");
        assert!(admit(&Gate::any(), &root, name).is_ok(), "{name}");
    }
    for name in ["fat:/etc", "nbd:unix:/x", "rbd:pool/x", "ssh://h/x", ""] {
        assert!(admit(&Gate::any(), &root, name).is_err(), "{name}");
    }
    for part in [r#"json:{"file":"base"}#1"#, r#"json:{"file":"base","options":{"parts":"/etc/passwd"}}"#] {
        assert!(admit(&Gate::any(), &root, part).is_err(), "{part}");
    }
}

#[test]
fn our_suffixes_are_for_people_only() {
    let (_dir, root) = tree();
    fs::write(root.join("images/odd#1"), "x").unwrap();
    let odd = admit(&Gate::beside(), &root, "odd#1").unwrap();
    assert!(odd.spec.steps.is_empty());
    odd.open(Options::default()).unwrap();
}

#[test]
fn an_image_at_an_address_has_no_directory() {
    let pass = Gate::beside().pass(&Location::Http("http://h/x".into())).unwrap();
    let by = Location::Http("http://h/x".into());
    assert_eq!(kind(pass.admit(&by, "base", "backing file")), Kind::Unsupported);
    assert_eq!(kind(pass.admit(&by, "/etc/passwd", "backing file")), Kind::Denied);
}
