//! Files that nobody compiles: a test that is in no `mod` line never fails.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::SourceFile;
use super::lexer;

/// Every file that its parent module does not name, and every test file outside tests/it.
pub(super) fn check(files: &[SourceFile]) -> Vec<String> {
    let texts: HashMap<&Path, &str> =
        files.iter().map(|file| (file.path.as_path(), file.text.as_str())).collect();
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| !file.path.starts_with("fuzz")) {
        if let Some(parents) = parents(&file.path)
            && !parents
                .iter()
                .any(|parent| texts.get(parent.as_path()).is_some_and(|text| names(text, &file.path)))
        {
            let expected =
                parents.iter().find(|parent| texts.contains_key(parent.as_path())).unwrap_or(&parents[0]);
            violations.push(format!(
                "{}: forgotten: no `mod {};` in {}",
                file.path.display(),
                module_name(&file.path),
                expected.display()
            ));
        } else if is_second_test_binary(&file.path) {
            violations
                .push(format!("{}: a crate has one test binary, tests/it/main.rs", file.path.display()));
        }
    }
    violations
}

/// The files that may name this one; None when cargo itself finds it.
fn parents(path: &Path) -> Option<Vec<PathBuf>> {
    let name = path.file_name()?.to_str()?;
    let dir = path.parent()?;
    if matches!(name, "main.rs" | "lib.rs" | "build.rs") {
        return None;
    }
    let inside = ["tests", "bin", "benches", "examples"];
    if dir.file_name().is_some_and(|folder| inside.iter().any(|known| folder == *known)) && is_cargo_dir(dir)
    {
        return None;
    }
    let home = if name == "mod.rs" { dir.parent()? } else { dir };
    let mut parents = vec![home.join("mod.rs"), home.join("main.rs"), home.join("lib.rs")];
    if let (Some(up), Some(folder)) = (home.parent(), home.file_name().and_then(|folder| folder.to_str())) {
        parents.push(up.join(format!("{folder}.rs")));
    }
    Some(parents)
}

/// Whether cargo takes the files of this folder for targets: CRATE/tests, CRATE/src/bin and their like.
fn is_cargo_dir(dir: &Path) -> bool {
    let parent = dir.parent().and_then(Path::file_name);
    let in_src = parent.is_some_and(|name| name == "src");
    let is_bin = dir.ends_with("bin");
    is_bin && in_src || !is_bin && !dir.iter().any(|part| part == "src")
}

fn is_second_test_binary(path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with("tests") && is_cargo_dir(dir))
}

fn module_name(path: &Path) -> String {
    let stem =
        if path.ends_with("mod.rs") { path.parent().and_then(Path::file_name) } else { path.file_stem() };
    stem.unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether the parent's text has `mod NAME;`, or names the file in `#[path]` or `include!`.
fn names(parent: &str, path: &Path) -> bool {
    let module = module_name(path);
    let code = lexer::blank(parent);
    let declared = lexer::words(&code, "mod").any(|at| {
        let rest = code[at + 3..].trim_start();
        let rest = rest.strip_prefix("r#").unwrap_or(rest);
        lexer::word_at(rest) == module && rest[module.len()..].trim_start().starts_with(';')
    });
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let by_path =
        |line: &str| (line.contains("#[path") || line.contains("include!")) && line.contains(file.as_ref());
    declared || parent.lines().any(by_path)
}
