//! The parser. It looks at the text alone, never at a directory.

use super::{Location, MAX_SPEC, MAX_STEPS, Spec, Step, json};
use chart::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The characters that a backslash makes ordinary.
const SPECIAL: &[u8] = b"#@:\\/";

pub(super) fn parse(text: &OsStr) -> Result<Spec> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err(Error::invalid("an empty SPEC names no disk"));
    }
    if bytes.len() > MAX_SPEC {
        return Err(Error::invalid(format!("a SPEC of {} bytes; {MAX_SPEC} are read at most", bytes.len())));
    }
    if bytes.contains(&0) {
        return Err(Error::invalid("a SPEC with a NUL byte in it"));
    }
    if let Some(rest) = bytes.strip_prefix(b"file:") {
        // As an address: file:///path. It is the same file with one slash.
        let rest = if rest.starts_with(b"///") { rest.get(2..).unwrap_or_default() } else { rest };
        return if rest.is_empty() {
            Err(Error::invalid("file: with no name behind it"))
        } else {
            Ok(plain(rest))
        };
    }
    if let Some(rest) = bytes.strip_prefix(b"json:") {
        let (mut spec, end) = json::parse(rest)?;
        steps(rest.get(end..).unwrap_or_default(), &mut spec.steps)?;
        return Ok(spec);
    }
    match scheme(bytes) {
        Some(scheme) => address(bytes, &scheme),
        None => path(bytes),
    }
}

fn plain(path: &[u8]) -> Spec {
    Spec::file(PathBuf::from(OsString::from_vec(path.to_vec())))
}

/// What stands before `://`, in lower case, where that is a scheme's name.
fn scheme(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&b| b == b':')?;
    let (name, rest) = bytes.split_at_checked(end)?;
    let is_name = name.first()?.is_ascii_alphabetic()
        && name.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
    (is_name && rest.starts_with(b"://")).then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

fn address(bytes: &[u8], scheme: &str) -> Result<Spec> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid("an address that is not UTF-8"))?;
    if let Some(odd) = text.chars().find(|c| c.is_control() || c.is_whitespace()) {
        return Err(Error::invalid(format!(
            "an address with {odd:?} in it; write it as %{:02X}",
            odd as u32
        )));
    }
    let known = make_address(scheme, String::new())?;
    // Suffixes begin behind the host: user@host and host:port are the address's own.
    let authority = scheme.len().saturating_add("://".len());
    let slash = bytes.iter().skip(authority).position(|&b| b == b'/');
    let from = slash.map_or(bytes.len(), |i| authority.saturating_add(i).saturating_add(1));
    let end = (from..bytes.len()).find(|&i| suffix(bytes, i, true)).unwrap_or(bytes.len());
    let head = text.get(..end).unwrap_or(text);
    let rest = head.get(scheme.len()..).unwrap_or_default();
    if rest.len() <= "://".len() {
        return Err(Error::invalid(format!("{head} names no host")));
    }
    let whole = format!("{scheme}{rest}");
    let mut spec = Spec::of(match known {
        Location::Nbd(_) => Location::Nbd(whole),
        _ => Location::Http(whole),
    });
    steps(bytes.get(end..).unwrap_or_default(), &mut spec.steps)?;
    Ok(spec)
}

/// The location that an address of this scheme is.
pub(super) fn make_address(scheme: &str, whole: String) -> Result<Location> {
    match scheme {
        "nbd" | "nbd+unix" | "nbds" | "nbds+unix" => Ok(Location::Nbd(whole)),
        "http" | "https" => Ok(Location::Http(whole)),
        other => {
            let what = format!(
                "{other}:// is not known to this build: nbd, nbds, nbd+unix, nbds+unix, http and https are (file: before \
                 a name that looks like an address)"
            );
            Err(Error::unsupported(what))
        }
    }
}

fn path(bytes: &[u8]) -> Result<Spec> {
    let (name, end) = word(bytes, 0, true);
    if name.is_empty() {
        return Err(Error::invalid("nothing stands before the first suffix: no disk is named"));
    }
    let mut spec = plain(&name);
    steps(bytes.get(end..).unwrap_or_default(), &mut spec.steps)?;
    Ok(spec)
}

/// The suffixes that `rest` is made of.
fn steps(rest: &[u8], into: &mut Vec<Step>) -> Result<()> {
    let mut i = 0;
    while let Some(&mark) = rest.get(i) {
        if into.len() >= MAX_STEPS {
            return Err(Error::invalid(format!("more than {MAX_STEPS} suffixes")));
        }
        let body = i.saturating_add(1);
        let step = match mark {
            b'#' => {
                let digits = digits_at(rest, body);
                i = body.saturating_add(digits);
                Step::Partition(partition(rest.get(body..i).unwrap_or_default())?)
            }
            b'@' => {
                let (name, end) = word(rest, body, true);
                let raw = rest.get(body..end).unwrap_or_default();
                if !version_at(raw, 0) {
                    let raw = String::from_utf8_lossy(raw);
                    let what = format!("@{raw} names no version (a / in its name is written \\/)");
                    return Err(Error::invalid(what));
                }
                i = end;
                Step::Version(utf8(name, "a version's name")?)
            }
            b':' => {
                let (name, end) = word(rest, body, false);
                i = end;
                Step::Path(PathBuf::from(OsString::from_vec(name)))
            }
            _ => {
                let odd = String::from_utf8_lossy(rest.get(i..).unwrap_or_default()).into_owned();
                return Err(Error::invalid(format!("{odd:?} is no suffix: #N, @NAME and :/PATH are")));
            }
        };
        check(&step)?;
        into.push(step);
    }
    Ok(())
}

/// Refuses a step that names nothing.
pub(super) fn check(step: &Step) -> Result<()> {
    match step {
        Step::Version(name) if name.is_empty() => Err(Error::invalid("@ with no version behind it")),
        Step::Partition(0) => Err(Error::invalid("partitions are counted from 1")),
        Step::Path(path) if !path.is_absolute() => Err(Error::invalid("a path inside begins with /")),
        _ => Ok(()),
    }
}

fn partition(digits: &[u8]) -> Result<u32> {
    let text = String::from_utf8_lossy(digits);
    text.parse().map_err(|_| Error::invalid(format!("#{text} is no partition's number")))
}

fn utf8(bytes: Vec<u8>, what: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::invalid(format!("{what} that is not UTF-8")))
}

/// The text from `from` to the next suffix with its backslashes taken away, and where it ends.
fn word(bytes: &[u8], from: usize, versions: bool) -> (Vec<u8>, usize) {
    let (mut i, mut out) = (from, Vec::new());
    while let Some(&b) = bytes.get(i) {
        match escaped(bytes, i) {
            Some(literal) => {
                out.push(literal);
                i = i.saturating_add(2);
            }
            None if suffix(bytes, i, versions) => break,
            None => {
                out.push(b);
                i = i.saturating_add(1);
            }
        }
    }
    (out, i)
}

/// The character that a backslash at `i` makes ordinary.
fn escaped(bytes: &[u8], i: usize) -> Option<u8> {
    if bytes.get(i) != Some(&b'\\') {
        return None;
    }
    bytes.get(i.saturating_add(1)).copied().filter(|next| SPECIAL.contains(next))
}

/// Whether a suffix begins at `i`.
fn suffix(bytes: &[u8], i: usize, versions: bool) -> bool {
    let next = i.saturating_add(1);
    match bytes.get(i) {
        Some(b':') => bytes.get(next) == Some(&b'/'),
        Some(b'#') => {
            let digits = digits_at(bytes, next);
            let behind = bytes.get(next.saturating_add(digits)..).unwrap_or_default();
            digits > 0
                && match behind {
                    [] | [b'@', ..] | [b':', b'/', ..] => true,
                    [b'#', digit, ..] => digit.is_ascii_digit(),
                    _ => false,
                }
        }
        Some(b'@') => versions && version_at(bytes, next),
        _ => false,
    }
}

fn digits_at(bytes: &[u8], from: usize) -> usize {
    bytes.iter().skip(from).take_while(|b| b.is_ascii_digit()).count()
}

/// Whether what begins at `from` is the name of a version: no `/` and no `@` before the next suffix or the end.
fn version_at(bytes: &[u8], from: usize) -> bool {
    let mut i = from;
    while let Some(&b) = bytes.get(i) {
        if escaped(bytes, i).is_some() {
            i = i.saturating_add(2);
            continue;
        }
        if b == b'/' || b == b'@' {
            return false;
        }
        if suffix(bytes, i, false) {
            break;
        }
        i = i.saturating_add(1);
    }
    i > from
}
