//! A SPEC as text again: the plainest form that reads back as the same SPEC.

use super::{Location, Spec, Step, json, parse};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

impl Spec {
    /// The SPEC as text, for a command line. Reads back as the same.
    pub fn to_os_string(&self) -> OsString {
        let same = |bytes: Vec<u8>| {
            let text = OsString::from_vec(bytes);
            parse::parse(&text).is_ok_and(|again| again == *self).then_some(text)
        };
        if self.format.is_none() && self.options.is_empty() {
            for form in [self.joined(false), self.joined(true), self.literal()] {
                if let Some(text) = same(form) {
                    return text;
                }
            }
        }
        json::text(self).into()
    }

    /// `file:` and the name.
    fn literal(&self) -> Vec<u8> {
        match &self.location {
            Location::File(path) if self.steps.is_empty() => [b"file:", path.as_os_str().as_bytes()].concat(),
            _ => Vec::new(),
        }
    }

    /// Its location and its steps, one after the other.
    fn joined(&self, escape: bool) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.location {
            Location::File(path) => push(&mut out, path.as_os_str(), escape, b"#@:"),
            Location::Nbd(address) | Location::Http(address) => out.extend_from_slice(address.as_bytes()),
        }
        for step in &self.steps {
            match step {
                Step::Version(name) => {
                    out.push(b'@');
                    push(&mut out, name.as_ref(), escape, b"#@:/");
                }
                Step::Partition(number) => out.extend_from_slice(format!("#{number}").as_bytes()),
                Step::Path(path) => {
                    out.push(b':');
                    let bytes = path.as_os_str().as_bytes();
                    let (first, rest) = bytes.split_at(bytes.len().min(1));
                    out.extend_from_slice(first);
                    // `name:` and two slashes would look like an address.
                    if escape && rest.first() == Some(&b'/') {
                        out.push(b'\\');
                    }
                    push(&mut out, OsStr::from_bytes(rest), escape, b"#@:");
                }
            }
        }
        out
    }
}

/// Adds `text`, with a backslash before each of `special` and before each backslash if it is to `escape` at all.
fn push(out: &mut Vec<u8>, text: &OsStr, escape: bool, special: &[u8]) {
    for &b in text.as_bytes() {
        if escape && (b == b'\\' || special.contains(&b)) {
            out.push(b'\\');
        }
        out.push(b);
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_os_string().display())
    }
}
