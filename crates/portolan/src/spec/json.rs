//! The `json:` form: everything spelled out. What QEMU writes into images is understood where it means the same.

use super::parse::{check, make_address};
use super::{Location, MAX_STEPS, Spec, Step};
use chart::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// How deep `file` objects may lie in each other.
const MAX_NESTING: usize = 4;

/// Reads the object that `bytes` begins with; where it ends.
pub(super) fn parse(bytes: &[u8]) -> Result<(Spec, usize)> {
    let mut stream = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    match stream.next() {
        Some(Ok(Value::Object(object))) => Ok((spec(object, 0)?, stream.byte_offset())),
        Some(Ok(_)) | None => Err(Error::invalid("json: is followed by an object: json:{\"file\": ...}")),
        Some(Err(e)) => Err(Error::invalid("json: cannot be read").caused_by(e)),
    }
}

/// The `json:` form of a SPEC.
pub(super) fn text(spec: &Spec) -> String {
    let mut object = Map::new();
    match &spec.location {
        Location::File(path) => object.insert("file".into(), path.to_string_lossy().into()),
        Location::Nbd(url) | Location::Http(url) => object.insert("url".into(), url.as_str().into()),
    };
    if let Some(format) = &spec.format {
        object.insert("format".into(), format.as_str().into());
    }
    if !spec.options.is_empty() {
        object.insert("options".into(), json!(spec.options));
    }
    if !spec.steps.is_empty() {
        let step = |s: &Step| match s {
            Step::Version(name) => json!({ "version": name }),
            Step::Partition(number) => json!({ "partition": number }),
            Step::Path(path) => json!({ "path": path.to_string_lossy() }),
        };
        object.insert("steps".into(), spec.steps.iter().map(step).collect());
    }
    format!("json:{}", Value::Object(object))
}

/// The names by which QEMU calls what is not a format but a place.
const PLACES: &[&str] = &["file", "host_device", "nbd", "http", "https"];

fn spec(mut object: Map<String, Value>, nesting: usize) -> Result<Spec> {
    if nesting > MAX_NESTING {
        return Err(Error::invalid(format!("json: more than {MAX_NESTING} files in each other")));
    }
    nest(&mut object)?;
    let driver = string(&mut object, "driver")?;
    let format = string(&mut object, "format")?;
    let (place, format) = match driver {
        Some(name) if PLACES.contains(&name.as_str()) => (Some(name), format),
        Some(name) if format.as_ref().is_none_or(|f| *f == name) => (None, Some(name)),
        Some(name) => {
            return Err(Error::invalid(format!("json: driver is {name}, but format is something else")));
        }
        None => (None, format),
    };
    let mut spec = location(&mut object, place.as_deref(), nesting)?;
    if let Some(format) = format {
        // raw inside of a format is QEMU's way to say "the bytes as they are".
        if spec.format.as_ref().is_some_and(|inner| inner != "raw") || !spec.steps.is_empty() {
            return Err(Error::unsupported(format!("json: {format} inside of another format")));
        }
        spec.format = Some(format);
    }
    options(&mut object, &mut spec)?;
    list_of_steps(&mut object, &mut spec)?;
    match object.keys().next() {
        None => Ok(spec),
        Some(key) => Err(Error::invalid(format!("json: {key:?} is not understood"))),
    }
}

/// Turns QEMU's flat keys, `file.filename`, into objects in each other.
fn nest(object: &mut Map<String, Value>) -> Result<()> {
    let dotted: Vec<String> = object.keys().filter(|k| k.contains('.')).cloned().collect();
    for key in dotted {
        let (Some((outer, inner)), Some(value)) = (key.split_once('.'), object.remove(&key)) else {
            continue;
        };
        match object.entry(outer).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(into) => into.insert(inner.to_owned(), value),
            _ => return Err(Error::invalid(format!("json: both {outer:?} and {key:?}"))),
        };
    }
    Ok(())
}

fn location(object: &mut Map<String, Value>, place: Option<&str>, nesting: usize) -> Result<Spec> {
    if place == Some("nbd") && !object.contains_key("url") {
        return Ok(Spec::of(Location::Nbd(nbd(object)?)));
    }
    let named = [string(object, "filename")?, string(object, "url")?, string(object, "uri")?];
    let file = object.remove("file");
    let mut given = named.into_iter().flatten();
    match (given.next(), given.next(), file) {
        (None, _, Some(Value::String(path))) => path_of(path),
        (None, _, Some(Value::Object(inner))) => spec(inner, nesting.saturating_add(1)),
        (Some(name), None, None) if place.is_some_and(|p| p == "file" || p == "host_device") => path_of(name),
        (Some(name), None, None) => address_of(name),
        (None, _, None) => Err(Error::invalid("json: no \"file\" and no \"url\"")),
        _ => Err(Error::invalid("json: more than one place is named")),
    }
}

fn path_of(path: String) -> Result<Spec> {
    match path.as_bytes() {
        [] => Err(Error::invalid("json: an empty file name")),
        bytes if bytes.contains(&0) => Err(Error::invalid("json: a file name with a NUL byte in it")),
        _ => Ok(Spec::file(path)),
    }
}

fn address_of(text: String) -> Result<Spec> {
    let Some((scheme, rest)) = text.split_once("://") else { return path_of(text) };
    if rest.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Error::invalid(format!("json: {text:?} is no address")));
    }
    let scheme = scheme.to_ascii_lowercase();
    let whole = format!("{scheme}://{rest}");
    Ok(Spec::of(make_address(&scheme, whole)?))
}

/// The address that QEMU's keys of an NBD place say.
fn nbd(object: &mut Map<String, Value>) -> Result<String> {
    if let Some(Value::Object(server)) = object.remove("server") {
        let known = |key: &str| matches!(key, "type" | "host" | "port" | "path");
        for (key, value) in server {
            if !known(&key) {
                return Err(Error::invalid(format!("json: \"server\": {key:?} is not understood")));
            }
            if key != "type" {
                object.insert(key, value);
            }
        }
    }
    let export = percent(&string(object, "export")?.unwrap_or_default());
    match (string(object, "path")?, string(object, "host")?, string(object, "port")?) {
        (Some(path), None, None) => Ok(format!("nbd+unix:///{export}?socket={}", percent(&path))),
        (None, Some(host), port) => {
            let port = port.map(|p| format!(":{p}")).unwrap_or_default();
            Ok(format!("nbd://{host}{port}/{export}"))
        }
        _ => Err(Error::invalid("json: nbd needs either \"host\" or \"path\"")),
    }
}

/// Text as an address can hold it.
fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn options(object: &mut Map<String, Value>, spec: &mut Spec) -> Result<()> {
    let mut given = match object.remove("options") {
        None => Map::new(),
        Some(Value::Object(given)) => given,
        Some(_) => return Err(Error::invalid("json: \"options\" is an object")),
    };
    for key in ["offset", "size"] {
        given.extend(object.remove_entry(key));
    }
    for (key, value) in given {
        let value = scalar(&key, value)?;
        spec.options.insert(key, value);
    }
    Ok(())
}

fn list_of_steps(object: &mut Map<String, Value>, spec: &mut Spec) -> Result<()> {
    let list = match object.remove("steps") {
        None => return Ok(()),
        Some(Value::Array(list)) if list.len() <= MAX_STEPS => list,
        Some(_) => return Err(Error::invalid(format!("json: \"steps\" is a list of at most {MAX_STEPS}"))),
    };
    for item in list {
        let unknown = Error::invalid(format!("json: {item} is no step"));
        let Value::Object(item) = item else { return Err(unknown) };
        let mut entries = item.into_iter();
        let step = match (entries.next(), entries.next()) {
            (Some((key, Value::String(name))), None) if key == "version" => Step::Version(name),
            (Some((key, Value::String(path))), None) if key == "path" => Step::Path(PathBuf::from(path)),
            (Some((key, Value::Number(n))), None) if key == "partition" => {
                Step::Partition(n.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or(unknown)?)
            }
            _ => return Err(unknown),
        };
        check(&step)?;
        spec.steps.push(step);
    }
    Ok(())
}

fn string(object: &mut Map<String, Value>, key: &str) -> Result<Option<String>> {
    object.remove(key).map(|value| scalar(key, value)).transpose()
}

fn scalar(key: &str, value: Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(yes) => Ok(yes.to_string()),
        _ => Err(Error::invalid(format!("json: {key:?} is one value"))),
    }
}
