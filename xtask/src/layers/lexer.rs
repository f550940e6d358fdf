//! Just enough of Rust's grammar to count lines without being fooled by strings and comments.

use std::ops::Range;

/// A function with a body: its name, the line of its `fn` (from 0) and how many lines it spans.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) lines: usize,
}

/// The text with comments, strings and character literals blanked; every line keeps its number.
pub(super) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = opaque_end(bytes, at);
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that starts at `at` ends; `at` itself when none starts there.
fn opaque_end(text: &[u8], at: usize) -> usize {
    let rest = &text[at..];
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + block_comment(rest),
        [b'"', ..] => at + string(rest),
        [b'\'', ..] => at + character(rest),
        [b'r', b'"' | b'#', ..] if !in_word(text, at) => at + raw_string(rest),
        _ => at,
    }
}

/// Whether the byte before `at` belongs to the same word, so that `for"` or `br` is not taken for `r"`.
fn in_word(text: &[u8], at: usize) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let before = at.checked_sub(1).map(|i| text[i]);
    // The b of br"..." and the c of cr"..." belong to the literal.
    let prefix = matches!(before, Some(b'b' | b'c')) && !(at >= 2 && word(text[at - 2]));
    before.is_some_and(word) && !prefix
}

fn block_comment(text: &[u8]) -> usize {
    let mut depth = 0u32;
    let mut at = 0;
    while at + 1 < text.len() {
        match &text[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn string(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// A raw string, or 0 when this is a raw identifier such as `r#type`.
fn raw_string(text: &[u8]) -> usize {
    let hashes = text[1..].iter().take_while(|&&b| b == b'#').count();
    if text.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let body = 2 + hashes;
    let end = text[body..].windows(close.len()).position(|window| window == close);
    end.map_or(text.len(), |end| body + end + close.len())
}

/// A character literal, or 0 when this is a lifetime or a label.
fn character(text: &[u8]) -> usize {
    match text.get(1) {
        Some(b'\\') => {
            let end = text.iter().skip(3).position(|&b| b == b'\'');
            end.map_or(text.len(), |end| end + 4)
        }
        Some(first) => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            if text.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
        }
        None => 0,
    }
}

/// Every function with a body in blanked text, except inside `#[cfg(test)] mod ... { }`.
pub(super) fn functions(blanked: &str) -> Vec<Function> {
    let skipped = test_modules(blanked);
    let mut found = Vec::new();
    for at in words(blanked, "fn") {
        if skipped.iter().any(|range| range.contains(&at)) {
            continue;
        }
        let name = word_at(blanked[at + 2..].trim_start());
        let Some(end) = body_end(blanked.as_bytes(), at) else { continue };
        if !name.is_empty() {
            let lines = blanked[at..end].matches('\n').count() + 1;
            found.push(Function { name: name.to_owned(), line: blanked[..at].matches('\n').count(), lines });
        }
    }
    found
}

/// Where the body of the item at `at` ends: past its closing brace. None for a declaration without a body.
fn body_end(text: &[u8], at: usize) -> Option<usize> {
    let mut brackets = 0i32;
    let mut braces = 0i32;
    for (i, byte) in text.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b';' if brackets == 0 && braces == 0 => return None,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces == 0 && brackets == 0 {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn test_modules(blanked: &str) -> Vec<Range<usize>> {
    let attribute = "#[cfg(test)]";
    let mut ranges = Vec::new();
    for (start, _) in blanked.match_indices(attribute) {
        let after = start + attribute.len();
        let item = blanked[after..].trim_start();
        let item = item.strip_prefix("pub").map_or(item, str::trim_start);
        if item.starts_with("mod ")
            && let Some(end) = body_end(blanked.as_bytes(), after)
        {
            ranges.push(start..end);
        }
    }
    ranges
}

/// Where `word` stands as a whole word.
pub(super) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'#';
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).is_some_and(|i| part(bytes[i]));
        let after = bytes.get(at + word.len()).is_some_and(|&byte| part(byte));
        !before && !after
    })
}

/// The word that `text` begins with.
pub(super) fn word_at(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}
