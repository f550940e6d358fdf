//! How to attach, ready to paste.

use super::ready::{Address, Heard};
use crate::output::Out;
use portolan::Format;
use portolan::serve::{Export, Server};
use portolan::size::show;
use std::fmt::Write as _;
use std::io::Write as _;

/// Prints what is served, which is in this format, and how to attach it.
pub(super) fn print(
    out: &mut Out,
    server: &Server,
    heard: &[Heard],
    format: Format,
    tls: bool,
) -> anyhow::Result<()> {
    for export in server.exports() {
        let name = if export.name.is_empty() { String::new() } else { format!(" as {:?}", export.name) };
        let how = if export.writable { "" } else { ", read-only" };
        let (what, size) = (&export.description, show(export.disk.len()));
        writeln!(out, "Serving {what}{name}: {size}{how}.")?;
    }
    for one in heard {
        let Heard::Listener { address, .. } = one else { continue };
        for export in server.exports() {
            if let Some(ways) = ways(address, &export, format, tls) {
                writeln!(out)?;
                ways.iter().try_for_each(|(who, line)| writeln!(out, "  {who:<11} {line}"))?;
            }
        }
    }
    if tls {
        writeln!(out, "\nDIR is where a client has the ca-cert.pem that vouches for this server.")?;
    }
    Ok(())
}

/// Who can attach an export, and with what words.
fn ways(
    address: &Address,
    export: &Export,
    format: Format,
    tls: bool,
) -> Option<Vec<(&'static str, String)>> {
    let (name, writable) = (&export.name, export.writable);
    let uri = uri(address, name, tls)?;
    if tls {
        let and = if uri.contains('?') { '&' } else { '?' };
        // Whom to trust only the client knows.
        let trusting = quote(&format!("{uri}{and}tls-certificates=DIR"));
        let who = ["Portolan", "nbdinfo"].into_iter().zip(["portolan info", "nbdinfo"]);
        return Some(who.map(|(who, command)| (who, format!("{command} {trusting}"))).collect());
    }
    let read_only = if writable { "" } else { ",readonly=on" };
    let quoted = quote(&uri);
    let mut ways = vec![("Portolan", format!("portolan info {quoted}"))];
    ways.push((
        "QEMU",
        format!(
            "qemu-system-x86_64 -drive {}",
            quote(&format!("file={uri},format={format},if=virtio{read_only}"))
        ),
    ));
    ways.push(("qemu-img", format!("qemu-img info {quoted}")));
    ways.push(("nbdinfo", format!("nbdinfo {quoted}")));
    let device = match address {
        Address::Unix(path) => format!("-unix {}", quote(&path.display().to_string())),
        Address::Tcp(host, port) => format!("{host} {port}"),
        Address::Inherited => return None,
    };
    let name = if name.is_empty() { String::new() } else { format!(" -name {}", quote(name)) };
    let read_only = if writable { "" } else { " -readonly" };
    ways.push(("kernel", format!("sudo nbd-client {device}{name}{read_only} /dev/nbd0")));
    Some(ways)
}

/// The address as NBD clients take it.
fn uri(address: &Address, name: &str, tls: bool) -> Option<String> {
    let s = if tls { "s" } else { "" };
    let name = escape(name);
    match address {
        Address::Unix(path) => {
            Some(format!("nbd{s}+unix:///{name}?socket={}", escape(&path.display().to_string())))
        }
        Address::Tcp(host, port) if host.contains(':') => Some(format!("nbd{s}://[{host}]:{port}/{name}")),
        Address::Tcp(host, port) => Some(format!("nbd{s}://{host}:{port}/{name}")),
        Address::Inherited => None,
    }
}

/// What would mean something in an address is written as a number.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._~-".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// As a shell takes it for one word.
fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_can_be_pasted() {
        let unix = Address::Unix("/tmp/a b.sock".into());
        assert_eq!(uri(&unix, "", false).unwrap(), "nbd+unix:///?socket=/tmp/a%20b.sock");
        assert_eq!(quote("a'b"), r"'a'\''b'");
        let tcp = Address::Tcp("::1".into(), 10809);
        assert_eq!(uri(&tcp, "x y", true).unwrap(), "nbds://[::1]:10809/x%20y");
        let disk = |name, writable| {
            let zeros = std::sync::Arc::new(chart::Table::from_extents(512, []).unwrap());
            let disk = chart::Disk::builder("zeros", zeros).build().unwrap();
            let mut export = Export::new(name, disk);
            export.writable = writable;
            export
        };
        let all = ways(&tcp, &disk("", true), Format::Raw, true).unwrap();
        assert_eq!(all[0].1, "portolan info 'nbds://[::1]:10809/?tls-certificates=DIR'");
        let all = ways(&unix, &disk("", true), Format::Qcow2, false).unwrap();
        let of = |wanted: &str| all.iter().find(|(who, _)| *who == wanted).unwrap().1.as_str();
        assert_eq!(of("kernel"), "sudo nbd-client -unix '/tmp/a b.sock' /dev/nbd0");
        assert!(of("QEMU").contains("format=qcow2,if=virtio"));
    }
}
