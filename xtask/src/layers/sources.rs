//! Rules on the text of sources: where unsafe is forbidden, and how long things may be.

use std::path::Path;

use super::SourceFile;
use super::lexer;

/// The crates that read hostile bytes or state the laws: no unsafe code, ever.
const FORBID_UNSAFE: &[&str] = &["chart", "format", "fs", "depot"];
const FORBID_LINE: &str = "#![forbid(unsafe_code)]";

const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 70;
/// The words that begin a written reason for being longer.
const REASON: &str = "Long because:";

/// Names that say nothing about what is inside.
const BANNED_FILES: &[&str] = &["utils.rs", "util.rs", "common.rs", "helpers.rs", "helper.rs", "misc.rs"];

/// Every violation of these rules.
pub(super) fn check(files: &[SourceFile]) -> Vec<String> {
    let mut violations = Vec::new();
    for file in files {
        unsafe_forbidden(file, &mut violations);
        named_for_something(file, &mut violations);
        if !is_test(&file.path) {
            file_length(file, &mut violations);
            function_lengths(file, &mut violations);
        }
    }
    violations
}

/// Tests may be long: a table of cases is.
fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs") || path.iter().any(|part| part == "tests")
}

fn unsafe_forbidden(file: &SourceFile, violations: &mut Vec<String>) {
    for name in FORBID_UNSAFE {
        let lib = Path::new("crates").join(name).join("src/lib.rs");
        if file.path == lib && !lexer::blank(&file.text).contains(FORBID_LINE) {
            violations.push(format!("{}: lacks `{FORBID_LINE}`", lib.display()));
        }
    }
}

fn named_for_something(file: &SourceFile, violations: &mut Vec<String>) {
    let banned = |name: &str| BANNED_FILES.contains(&name);
    if file.path.file_name().and_then(|name| name.to_str()).is_some_and(banned) {
        violations.push(format!("{}: name the file for what is in it", file.path.display()));
    }
}

fn file_length(file: &SourceFile, violations: &mut Vec<String>) {
    let lines = file.text.lines().count();
    let reason = file.text.lines().any(|line| line.starts_with("//!") && line.contains(REASON));
    if lines > FILE_LINES && !reason {
        violations.push(format!(
            "{}: {lines} lines, at most {FILE_LINES}: split it, or say `//! {REASON} ...` at its head",
            file.path.display()
        ));
    }
}

fn function_lengths(file: &SourceFile, violations: &mut Vec<String>) {
    let lines: Vec<&str> = file.text.lines().collect();
    for function in lexer::functions(&lexer::blank(&file.text)) {
        if function.lines > FUNCTION_LINES && !has_reason(&lines[..function.line]) {
            violations.push(format!(
                "{}:{}: fn {} is {} lines, at most {FUNCTION_LINES}: split it, or say `// {REASON} ...` above it",
                file.path.display(),
                function.line + 1,
                function.name,
                function.lines
            ));
        }
    }
}

/// Whether the comments and attributes directly above hold a reason.
fn has_reason(above: &[&str]) -> bool {
    for line in above.iter().rev().map(|line| line.trim()) {
        if line.starts_with("//") {
            if line.contains(REASON) {
                return true;
            }
        } else if line.is_empty() || line.ends_with(['}', ';', '{']) {
            return false;
        }
    }
    false
}
