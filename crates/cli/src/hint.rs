//! What to do next, by what went wrong.

use chart::{Error, Kind, Remedy};

/// A line for a person who sees this error.
pub(crate) fn of(e: &anyhow::Error) -> Option<String> {
    let e = e.downcast_ref::<Error>()?;
    if let Some(remedy) = e.remedy() {
        return Some(remedied(remedy).to_owned());
    }
    let command = std::env::args_os().nth(1);
    let hint = match e.kind() {
        Kind::NotFound => return literal_name(e).or_else(|| inner_path(e)),
        Kind::Denied if is_in_directory(e) => "--option skip-unreadable=on leaves out what may not be read.",
        Kind::Denied if e.os_code().is_some() => "Check the permissions of the file and of its directory.",
        // Who runs it already is not sent there.
        Kind::Corrupt if command.as_deref().is_some_and(|c| c == "check") => return None,
        // What is damaged may be what the image holds.
        Kind::Corrupt if command.as_deref().is_some_and(|c| c == "ls" || c == "cat" || c == "extract") => {
            "`portolan check` tells what is wrong with an image, `e2fsck -n` what is with a file system in it."
        }
        Kind::Corrupt => "`portolan check` tells what is wrong with an image.",
        Kind::NoSpace => "Make room, or choose another place.",
        Kind::Unavailable => "Is the server running, and reachable from here?",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// What there is to type.
fn remedied(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::AllowThere => {
            "To let images name files there, add --allow DIR (or --allow-any, if you trust them)."
        }
        Remedy::AllowAnything => "If you trust the image, add --allow-any.",
        Remedy::AllowGuessing => {
            "--guess takes it from the bytes; `portolan rebase -u -b NAME -F FORMAT` writes it down for good."
        }
        Remedy::StopUser => "Stop what is using it.",
        Remedy::StopUserOrShare => {
            "Stop what is using it, or look at it with -U (what is being written may then look damaged)."
        }
        Remedy::Replace => "If what is there is to be replaced, add --force.",
        Remedy::NameRaw => "If its bytes are the disk as they are, add -f raw.",
        Remedy::AllowShrinking => "If that is meant, add --shrink.",
        Remedy::BreakLoop => "`portolan rebase -u -b NAME -F FORMAT` puts one of them over another file.",
        Remedy::ChoosePartition => {
            "`portolan ls IMAGE` lists the partitions; IMAGE#1 is the first, IMAGE#1:/ its root."
        }
        Remedy::ListOrExtract => {
            "`portolan ls SPEC` lists it, `portolan extract SPEC -o DIR` takes all of it out."
        }
        Remedy::ChartAgain => {
            "`portolan chart -o FILE SPEC` writes a chart anew. If it is none but a raw disk, add -f raw."
        }
    }
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

/// Whether what failed lies in a directory that is to be shown as a disk.
fn is_in_directory(e: &Error) -> bool {
    let Some(path) = e.path() else { return false };
    let shown = |arg: std::ffi::OsString| {
        let dir = std::path::Path::new(&arg);
        dir != path && path.starts_with(dir) && dir.is_dir()
    };
    std::env::args_os().skip(2).any(shown)
}

/// Where what was taken for a file's name seems to have been meant as a path inside a disk.
fn inner_path(e: &Error) -> Option<String> {
    let name = e.path()?.to_str()?;
    let (disk, inside) = name.split_once(':')?;
    let image = disk.split_once('#').map_or(disk, |(image, _)| image);
    let meant = !inside.starts_with('/') && std::path::Path::new(image).is_file();
    meant.then(|| format!("A path inside a disk begins with a slash: {disk}:/{inside}"))
}

fn arg_path(bytes: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(bytes))
}
