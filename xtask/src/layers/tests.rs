use std::path::PathBuf;

use super::{SourceFile, arrows, check, lexer, modules, sources};
use crate::house::{self, Dependency, Package};

fn package(name: &str, dependencies: &[(&str, bool)]) -> Package {
    let dependencies =
        dependencies.iter().map(|&(name, dev)| Dependency { name: name.to_owned(), dev }).collect();
    Package { name: name.to_owned(), dir: PathBuf::from(name), dependencies, bins: Vec::new() }
}

/// What check says of one arrow.
fn arrow(from: &str, to: &str, dev: bool) -> Vec<String> {
    arrows::check(&[package(from, &[(to, dev)])])
}

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: PathBuf::from(path), text: text.to_owned() }
}

fn long_function(name: &str, lines: usize) -> String {
    format!("fn {name}() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
}

#[test]
fn arrows_that_point_down_are_fine() {
    let down =
        [("io", "chart"), ("format", "io"), ("serve", "chart"), ("portolan", "fs"), ("portolan-cli", "web")];
    for (from, to) in down {
        assert_eq!(arrow(from, to, false), [""; 0], "{from} -> {to}");
    }
    assert_eq!(arrow("format", "serde", false), [""; 0], "crates of others have no layer");
}

#[test]
fn an_arrow_up_is_named_with_both_ends_and_the_rule() {
    let said = arrow("chart", "io", false);
    assert_eq!(said, ["chart -> io: points up, from layer 0 to layer 1; an arrow goes to a lower layer"]);
    assert!(arrow("format", "portolan", true)[0].contains("(dev-dependency): points up"));
}

#[test]
fn an_arrow_sideways_is_refused_for_every_pair_of_layer_two_unless_it_is_for_tests() {
    let layer_two = ["format", "fs", "depot", "serve"];
    for from in layer_two {
        for to in layer_two {
            assert!(arrow(from, to, false)[0].contains("sideways"), "{from} -> {to}");
            assert_eq!(arrow(from, to, true), [""; 0], "{from} -> {to} as dev");
        }
    }
}

#[test]
fn testkit_is_for_tests_only() {
    assert_eq!(arrow("format", "testkit", true), [""; 0]);
    assert!(arrow("format", "testkit", false)[0].contains("only a dev-dependency"));
    assert_eq!(arrow("testkit", "io", false), [""; 0]);
    assert!(arrow("testkit", "serve", false)[0].contains("testkit may see only"));
}

#[test]
fn nothing_depends_on_xtask_nor_xtask_on_us() {
    assert!(arrow("portolan", "xtask", true)[0].contains("nothing may depend on xtask"));
    assert!(arrow("xtask", "chart", false)[0].contains("no crate of ours"));
    assert_eq!(arrow("fuzz", "format", false), [""; 0]);
}

#[test]
fn a_crate_needs_a_layer() {
    assert!(arrows::check(&[package("attic", &[])])[0].contains("`attic` has no layer"));
    let folders = ["chart", "attic", "cli"].map(str::to_owned);
    let said = arrows::check_folders(&folders);
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("crates/attic has no layer"), "{said:?}");
}

#[test]
fn unsafe_is_forbidden_where_bytes_are_hostile() {
    for name in ["chart", "format", "fs", "depot"] {
        let path = format!("crates/{name}/src/lib.rs");
        let said = sources::check(&[file(&path, "//! A crate.\n// #![forbid(unsafe_code)]\n")]);
        assert_eq!(said, [format!("{path}: lacks `#![forbid(unsafe_code)]`")]);
        assert_eq!(sources::check(&[file(&path, "//! A crate.\n#![forbid(unsafe_code)]\n")]), [""; 0]);
    }
    assert_eq!(sources::check(&[file("crates/io/src/lib.rs", "//! May.\n")]), [""; 0]);
}

#[test]
fn long_files_need_a_reason_and_tests_do_not() {
    let long = "// a line\n".repeat(801);
    let said = sources::check(&[file("crates/io/src/file.rs", &long)]);
    assert!(said[0].contains("801 lines, at most 800"), "{said:?}");
    let reason = format!("//! Long because: one table.\n{long}");
    let fine = [
        file("crates/io/src/file.rs", &"// a line\n".repeat(800)),
        file("crates/io/src/file.rs", &reason),
        file("crates/io/src/file/tests.rs", &long),
        file("crates/io/tests/it/file.rs", &long),
    ];
    assert_eq!(sources::check(&fine), [""; 0]);
}

#[test]
fn long_functions_need_a_reason() {
    let path = "crates/io/src/file.rs";
    assert_eq!(sources::check(&[file(path, &long_function("short", 70))]), [""; 0]);
    let said = sources::check(&[file(path, &format!("\n{}", long_function("tall", 71)))]);
    assert!(said[0].starts_with("crates/io/src/file.rs:2: fn tall is 71 lines"), "{said:?}");

    let above = |reason: &str| sources::check(&[file(path, &format!("{reason}{}", long_function("f", 99)))]);
    assert_eq!(above("// Long because: one match.\n#[inline]\n"), [""; 0]);
    assert_eq!(above("/// Does it; at length;\n// Long because: one match.\n/// More.\n"), [""; 0]);
    assert_eq!(above("// Long because: of another.\nfn g() {}\n").len(), 1);
    assert_eq!(above("// Long because: of nobody.\n\n").len(), 1);
}

#[test]
fn functions_are_counted_whatever_strings_and_comments_say() {
    let text = r####"
fn one(a: [u8; { 2 + 2 }]) -> char {
    let b = "}} fn not() {"; // } }
    let c = r#"} " }"#; /* } /* } */ */
    let d = ('}', '\'', '\u{7d}', b'}', "\"}", 'é');
    '{'
}
trait T { fn declared(&self); }
fn two<'a>(f: fn(u8) -> u8, x: &'a str) {}
#[cfg(test)]
mod tests {
    fn unseen() {}
}
fn three() { fn inner() {} }
"####;
    let found = lexer::functions(&lexer::blank(text));
    let seen: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
    assert_eq!(seen, [("one", 1, 6), ("two", 8, 1), ("three", 13, 1), ("inner", 13, 1)]);
}

#[test]
fn blanking_keeps_every_line_and_all_code() {
    let text = "let r = r#type; br\"x{\"; cr#\"y{\"#; for_r\"{\";\n/* {\n */ 'label: loop { }\n";
    let blanked = lexer::blank(text);
    assert_eq!(blanked.matches('\n').count(), text.matches('\n').count());
    assert_eq!(blanked.matches('{').count(), 1);
    assert!(blanked.contains("r#type") && blanked.contains("'label: loop"));
}

#[test]
fn a_file_with_no_name_is_named_for_nothing() {
    let said = sources::check(&[file("crates/io/src/utils.rs", "")]);
    assert_eq!(said, ["crates/io/src/utils.rs: name the file for what is in it"]);
}

#[test]
fn forgotten_test_files_are_found() {
    let main = file("crates/io/tests/it/main.rs", "//! Tests.\nmod copy;\n// mod lost;\n");
    let said = modules::check(&[
        main,
        file("crates/io/tests/it/copy.rs", ""),
        file("crates/io/tests/it/lost.rs", ""),
        file("crates/io/tests/it/deep/mod.rs", "mod known;\n"),
        file("crates/io/tests/it/deep/known.rs", ""),
        file("crates/io/tests/it/deep/unknown.rs", ""),
        file("crates/io/tests/stray.rs", ""),
    ]);
    assert_eq!(
        said,
        [
            "crates/io/tests/it/lost.rs: forgotten: no `mod lost;` in crates/io/tests/it/main.rs",
            "crates/io/tests/it/deep/mod.rs: forgotten: no `mod deep;` in crates/io/tests/it/main.rs",
            "crates/io/tests/it/deep/unknown.rs: forgotten: no `mod unknown;` in crates/io/tests/it/deep/mod.rs",
            "crates/io/tests/stray.rs: a crate has one test binary, tests/it/main.rs",
        ]
    );
}

#[test]
fn forgotten_modules_are_found() {
    let said = modules::check(&[
        file("crates/format/src/lib.rs", "pub mod qcow2;\n#[path = \"odd.rs\"]\nmod even;\n"),
        file("crates/format/src/odd.rs", ""),
        file("crates/format/src/qcow2/mod.rs", "mod layout;\n#[cfg(test)]\nmod tests ;\n"),
        file("crates/format/src/qcow2/layout.rs", ""),
        file("crates/format/src/qcow2/tests.rs", ""),
        file("crates/format/src/raw.rs", ""),
        file("crates/format/src/bin/tool.rs", ""),
        file("crates/format/benches/speed.rs", ""),
        file("crates/format/build.rs", ""),
    ]);
    let only = "crates/format/src/raw.rs: forgotten: no `mod raw;` in crates/format/src/lib.rs";
    assert_eq!(said, [only]);
}

/// The house itself: what CI runs, also run where a person runs only the tests.
#[test]
fn this_house_keeps_its_own_rules() {
    let (violations, files) = check(house::root()).unwrap();
    let own: Vec<_> = violations.iter().filter(|said| said.starts_with("xtask")).collect();
    assert!(own.is_empty(), "{own:#?}");
    assert!(files > 10);
}
