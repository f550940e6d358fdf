//! What to do next, by what went wrong.

use chart::{Error, Kind};

/// A line for a person who sees this error.
pub(crate) fn of(e: &anyhow::Error) -> Option<String> {
    let e = e.downcast_ref::<Error>()?;
    let text = e.to_string();
    let hint = match e.kind() {
        Kind::NotFound => return literal_name(e),
        Kind::Denied if text.contains("lies outside") => {
            "To let images name files there, add --allow DIR (or --allow-any, if you trust them)."
        }
        Kind::Denied if text.contains("allow guessing") => {
            "--guess takes it from the bytes; `portolan rebase -u -b NAME -F FORMAT` writes it down for good."
        }
        Kind::Denied if text.contains("no server") => "If you trust the image, add --allow-any.",
        Kind::Denied if e.os_code().is_some() => "Check the permissions of the file and of its directory.",
        Kind::Conflict if text.contains("does not allow it to be written") => "Stop what is using it.",
        Kind::Conflict if text.contains("another process") => {
            "Stop what is using it, or look at it with -U (what is being written may then look damaged)."
        }
        Kind::Conflict if text.contains("exists already") => "To replace it, add --force.",
        Kind::Conflict if text.contains("block device") => "If that is meant, add --force.",
        Kind::Invalid if text.contains("named as raw") => "If it is a raw disk, add -f raw.",
        Kind::Invalid if text.contains("what lies behind would be lost") => "If that is meant, add --shrink.",
        Kind::Unsupported if text.contains("name it as raw") => "That is -f raw.",
        Kind::Corrupt if text.contains("images loops") => {
            "`portolan rebase -u -b NAME -F FORMAT` puts one of them over another file."
        }
        // Who runs it already is not sent there.
        Kind::Corrupt if std::env::args_os().nth(1).is_some_and(|command| command == "check") => return None,
        Kind::Corrupt => "`portolan check` tells what is wrong with an image.",
        Kind::NoSpace => "Make room, or choose another place.",
        Kind::Unavailable => "Is the server running, and reachable from here?",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Where a suffix was taken off a name that exists as it was written.
fn literal_name(e: &Error) -> Option<String> {
    let path = e.path()?;
    let suffixed = std::env::args_os().skip(1).find(|arg| {
        use std::os::unix::ffi::OsStrExt;
        let (arg, path) = (arg.as_bytes(), path.as_os_str().as_bytes());
        arg.len() > path.len() && arg.starts_with(path) && std::fs::symlink_metadata(arg_path(arg)).is_ok()
    })?;
    Some(format!("There is a file of that whole name: write file:{} to mean it.", suffixed.display()))
}

fn arg_path(bytes: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(bytes))
}
