use crate::run::Dir;

const COMMANDS: &[&str] = &[
    "info",
    "chart",
    "compare",
    "ls",
    "cat",
    "extract",
    "convert",
    "create",
    "resize",
    "measure",
    "check",
    "snapshot",
    "commit",
    "rebase",
    "bitmap",
    "serve",
    "bench",
    "tour",
    "completions",
    "man",
    "help",
];

#[test]
fn every_command_explains_itself() {
    let dir = Dir::new();
    let all = dir.ok("help").out;
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command} ")), "{command} is not in\n{all}");
        let own = dir.ok(&format!("help {command}")).out;
        assert!(own.contains("Usage:"), "{own}");
        assert!(own.lines().all(|l| l.chars().count() <= 120), "{command} is too wide:\n{own}");
    }
    dir.fails("help nonsense", &["no command"]);
}

#[test]
fn the_grammar_is_written_once() {
    let dir = Dir::new();
    let told = dir.ok("help spec").out;
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    assert!(docs.contains(&told), "docs/cli.md does not hold what `portolan help spec` prints");
}

#[test]
fn the_documentation_names_every_command() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md")).unwrap();
    for command in COMMANDS {
        assert!(docs.contains(&format!("portolan {command}")), "{command}");
    }
}

#[test]
fn completions_and_manual_pages() {
    let dir = Dir::new();
    assert!(dir.ok("completions bash").out.contains("complete"));
    assert!(dir.ok("man").out.contains(".TH portolan"));
    dir.ok("man --dir pages");
    assert!(dir.join("pages/portolan-convert.1").exists());
}
