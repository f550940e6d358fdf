//! How to attach, ready to paste.

use super::ready::{Address, Heard};
use crate::output::Out;
use portolan::Format;
use portolan::serve::{Export, Server};
use portolan::size::show;
use std::fmt::Write as _;
use std::io::Write as _;

/// Whether clients come under TLS, and what they have to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// There is none.
    Open,
    /// The server shows a certificate.
    Tls,
    /// Both sides show one.
    Mutual,
}

/// What is to be known of what is served.
pub(super) struct Served {
    /// What becomes of what is written.
    pub(super) writes: String,
    /// What a client finds.
    pub(super) format: Format,
    pub(super) guard: Guard,
    /// There is a file system in it, with nothing around that.
    pub(super) mounts: bool,
}

/// Prints what is served and how to attach it; whether there is anything to say of that. Who has opened a socket knows how
/// to reach it.
pub(super) fn print(
    out: &mut Out,
    server: &Server,
    heard: &[Heard],
    served: &Served,
) -> anyhow::Result<bool> {
    let Served { writes, format, guard, mounts } = served;
    let (format, guard) = (*format, *guard);
    for export in server.exports() {
        let name = if export.name.is_empty() { String::new() } else { format!(" as {:?}", export.name) };
        let how = if export.writable { writes.as_str() } else { ", read-only" };
        let (what, size) = (&export.description, show(export.disk.len()));
        writeln!(out, "Serving {what}{name}: {size}{how}.")?;
    }
    let addresses = heard.iter().filter_map(|one| match one {
        Heard::Listeners { address, .. } => Some(address),
        Heard::Client(_) => None,
    });
    let mut known = Vec::new();
    for address in addresses {
        for export in server.exports() {
            if let Some(mut ways) = ways(address, &export, format, guard) {
                ways.extend(mounts.then(|| ("", MOUNT.to_owned())));
                writeln!(out)?;
                ways.iter().try_for_each(|(who, line)| writeln!(out, "  {who:<11} {line}"))?;
                known.push(address);
            }
        }
    }
    if guard != Guard::Open && !known.is_empty() {
        let shown =
            if guard == Guard::Mutual { ", and its own client-cert.pem and client-key.pem" } else { "" };
        write!(out, "\nDIR is where a client has the ca-cert.pem that vouches for this server{shown}.")?;
        if known.iter().any(|address| matches!(address, Address::Unix(_))) {
            write!(out, " HOST is a name in the server's certificate.")?;
        }
        writeln!(out)?;
    }
    Ok(!known.is_empty())
}

/// What comes behind the kernel's line.
const MOUNT: &str = "sudo mount -o ro /dev/nbd0 /mnt";

/// Who can attach an export, and with what words.
fn ways(
    address: &Address,
    export: &Export,
    format: Format,
    guard: Guard,
) -> Option<Vec<(&'static str, String)>> {
    let name = &export.name;
    let mut uri = uri(address, name, guard)?;
    let device = match address {
        Address::Unix(path) => format!("-unix {}", quote(&path.display().to_string())),
        Address::Tcp(host, port) => format!("{host} {port}"),
        Address::Inherited => return None,
    };
    let mut drive = format!("file={uri},format={format},if=virtio");
    if guard != Guard::Open {
        // Whom to trust only the client knows.
        uri.push_str(if uri.contains('?') { "&tls-certificates=DIR" } else { "?tls-certificates=DIR" });
        drive = format!("{},format={format},if=virtio", node(address, name)?);
    }
    if !export.writable {
        drive.push_str(",readonly=on");
    }
    let (quoted, drive) = (quote(&uri), quote(&drive));
    let credentials = match guard {
        Guard::Open => "",
        Guard::Tls | Guard::Mutual => "-object tls-creds-x509,id=tls,endpoint=client,dir=DIR ",
    };
    let mut ways = vec![
        ("Portolan", format!("portolan info {quoted}")),
        ("QEMU", format!("qemu-system-x86_64 {credentials}-drive {drive}")),
        ("nbdinfo", format!("nbdinfo {quoted}")),
    ];
    if guard == Guard::Open {
        ways.insert(2, ("qemu-img", format!("qemu-img info {quoted}")));
    }
    let name = if name.is_empty() { String::new() } else { format!(" -name {}", quote(name)) };
    let read_only = if export.writable { "" } else { " -readonly" };
    let trust = trust(address, guard);
    ways.push(("kernel", format!("sudo nbd-client {device}{name}{trust}{read_only} /dev/nbd0")));
    Some(ways)
}

/// The options with which nbd-client speaks TLS.
fn trust(address: &Address, guard: Guard) -> String {
    let mut options = String::new();
    if guard != Guard::Open {
        options.push_str(" -cacertfile DIR/ca-cert.pem");
    }
    if guard == Guard::Mutual {
        options.push_str(" -certfile DIR/client-cert.pem -keyfile DIR/client-key.pem");
    }
    if guard != Guard::Open && matches!(address, Address::Unix(_)) {
        options.push_str(" -tlshostname HOST");
    }
    options
}

/// An export under TLS as QEMU takes it: its addresses have no place for credentials.
fn node(address: &Address, name: &str) -> Option<String> {
    let value = |text: &str| text.replace(',', ",,");
    let server = match address {
        Address::Unix(path) => {
            let path = value(&path.display().to_string());
            format!("file.server.type=unix,file.server.path={path},file.tls-hostname=HOST")
        }
        Address::Tcp(host, port) => {
            format!("file.server.type=inet,file.server.host={host},file.server.port={port}")
        }
        Address::Inherited => return None,
    };
    let export = if name.is_empty() { String::new() } else { format!(",file.export={}", value(name)) };
    Some(format!("file.driver=nbd,{server}{export},file.tls-creds=tls"))
}

/// The address as NBD clients take it.
fn uri(address: &Address, name: &str, guard: Guard) -> Option<String> {
    let s = if guard == Guard::Open { "" } else { "s" };
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

    fn disk(name: &str, writable: bool) -> Export {
        let zeros = std::sync::Arc::new(chart::Table::from_extents(512, []).unwrap());
        let disk = chart::Disk::builder("zeros", zeros).build().unwrap();
        let mut export = Export::new(name, disk);
        export.writable = writable;
        export
    }

    fn said(address: &Address, export: &Export, guard: Guard, who: &str) -> String {
        let all = ways(address, export, Format::Qcow2, guard).unwrap();
        all.into_iter().find(|(one, _)| *one == who).unwrap().1
    }

    #[test]
    fn ways_can_be_pasted() {
        let unix = Address::Unix("/tmp/a b.sock".into());
        assert_eq!(uri(&unix, "", Guard::Open).unwrap(), "nbd+unix:///?socket=/tmp/a%20b.sock");
        assert_eq!(quote("a'b"), r"'a'\''b'");
        let tcp = Address::Tcp("::1".into(), 10809);
        assert_eq!(uri(&tcp, "x y", Guard::Tls).unwrap(), "nbds://[::1]:10809/x%20y");
        let of = |who| said(&unix, &disk("", true), Guard::Open, who);
        assert_eq!(of("kernel"), "sudo nbd-client -unix '/tmp/a b.sock' /dev/nbd0");
        assert!(of("QEMU").contains("format=qcow2,if=virtio"));
        assert!(said(&unix, &disk("", false), Guard::Open, "QEMU").contains("readonly=on"));
    }

    #[test]
    fn ways_under_tls_say_whom_to_trust() {
        let (unix, tcp) = (Address::Unix("/tmp/a,b.sock".into()), Address::Tcp("::1".into(), 10809));
        let of = |who| said(&tcp, &disk("", true), Guard::Tls, who);
        assert_eq!(of("Portolan"), "portolan info 'nbds://[::1]:10809/?tls-certificates=DIR'");
        assert_eq!(of("kernel"), "sudo nbd-client ::1 10809 -cacertfile DIR/ca-cert.pem /dev/nbd0");
        let of = |who| said(&unix, &disk("x,y", false), Guard::Mutual, who);
        assert!(of("QEMU").contains("server.path=/tmp/a,,b.sock,file.tls-hostname=HOST,file.export=x,,y,"));
        assert!(of("QEMU").contains("tls-creds-x509,id=tls,endpoint=client,dir=DIR -drive"));
        assert!(of("kernel").contains("-keyfile DIR/client-key.pem -tlshostname HOST -readonly /dev/nbd0"));
        assert!(ways(&Address::Inherited, &disk("", true), Format::Raw, Guard::Open).is_none());
    }
}
