//! NBD addresses (`doc/uri.md`): `nbd://HOST[:PORT]/NAME`, `nbd+unix:///NAME?socket=PATH`, and `nbds` for both.

use super::wire;
use chart::{Error, Result};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// At a TCP port.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// At a unix socket. One that begins with NUL is in the abstract namespace.
    Unix(PathBuf),
}

/// A parsed NBD address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// Where the server is.
    pub endpoint: Endpoint,
    /// The export's name; empty for the server's default one.
    pub export: String,
    /// Whether it must be TLS (`nbds`).
    pub tls: bool,
    /// What the server's certificate must name, where that is not the host (`tls-hostname`).
    pub tls_hostname: Option<String>,
    /// A directory with `ca-cert.pem`, and `client-cert.pem` and `client-key.pem` where the server asks for
    /// them (`tls-certificates`).
    pub tls_certificates: Option<PathBuf>,
}

impl Uri {
    /// Whether `text` begins like an NBD address.
    pub fn is_one(text: &str) -> bool {
        matches!(text.split_once(':'), Some(("nbd" | "nbds" | "nbd+unix" | "nbds+unix", _)))
    }

    /// Parses an address.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parts(text).map_err(|e| e.during(format!("NBD address {text}")))
    }

    fn parts(text: &str) -> Result<Self> {
        let no_scheme =
            || Error::invalid("it has to begin with nbd://, nbd+unix://, nbds:// or nbds+unix://");
        let (scheme, rest) = text.split_once("://").ok_or_else(no_scheme)?;
        let (tls, unix) = match scheme {
            "nbd" => (false, false),
            "nbds" => (true, false),
            "nbd+unix" => (false, true),
            "nbds+unix" => (true, true),
            _ => return Err(no_scheme()),
        };
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let query = Query::parse(query)?;
        let endpoint =
            if unix { unix_endpoint(authority, &query)? } else { tcp_endpoint(authority, &query)? };
        let export = string(decode(path)?, "the export's name")?;
        if export.len() > wire::STRING_MAX || export.contains('\0') {
            return Err(Error::invalid("the export's name is too long or contains NUL"));
        }
        let Query { tls_hostname, tls_certificates, .. } = query;
        if !tls && (tls_hostname.is_some() || tls_certificates.is_some()) {
            return Err(Error::invalid("TLS parameters need an nbds:// or nbds+unix:// address"));
        }
        Ok(Uri { endpoint, export, tls, tls_hostname, tls_certificates })
    }

    /// The same server's address with another export.
    #[must_use]
    pub fn with_export(mut self, name: &str) -> Self {
        self.export = name.to_owned();
        self
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.tls { "s" } else { "" };
        let mut parameters = Vec::new();
        match &self.endpoint {
            Endpoint::Tcp { host, port } => {
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "nbd{s}://{open}{host}{close}")?;
                if *port != wire::PORT {
                    write!(f, ":{port}")?;
                }
                write!(f, "/{}", encode(self.export.as_bytes()))?;
            }
            Endpoint::Unix(path) => {
                write!(f, "nbd{s}+unix:///{}", encode(self.export.as_bytes()))?;
                parameters.push(format!("socket={}", encode(path.as_os_str().as_encoded_bytes())));
            }
        }
        if let Some(name) = &self.tls_hostname {
            parameters.push(format!("tls-hostname={}", encode(name.as_bytes())));
        }
        if let Some(path) = &self.tls_certificates {
            parameters.push(format!("tls-certificates={}", encode(path.as_os_str().as_encoded_bytes())));
        }
        if parameters.is_empty() { Ok(()) } else { write!(f, "?{}", parameters.join("&")) }
    }
}

#[derive(Default)]
struct Query {
    socket: Option<PathBuf>,
    tls_hostname: Option<String>,
    tls_certificates: Option<PathBuf>,
}

impl Query {
    fn parse(text: &str) -> Result<Self> {
        let mut query = Query::default();
        for pair in text.split(['&', ';']).filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            match key {
                "socket" => query.socket = Some(path(value)),
                "tls-hostname" => query.tls_hostname = Some(string(value, key)?),
                "tls-certificates" => query.tls_certificates = Some(path(value)),
                "tls-type" if value == b"x509" => {}
                "tls-verify-peer" if value == b"1" => {}
                "tls-type" => return Err(Error::unsupported("of TLS, only tls-type=x509 is supported")),
                "tls-verify-peer" => {
                    return Err(Error::unsupported(
                        "a server that is not verified is as good as no TLS: use nbd",
                    ));
                }
                _ => return Err(Error::invalid(format!("it has an unknown parameter, {key:?}"))),
            }
        }
        Ok(query)
    }
}

fn unix_endpoint(authority: &str, query: &Query) -> Result<Endpoint> {
    if !authority.is_empty() {
        return Err(Error::invalid(
            "a unix address has no host: write three slashes, nbd+unix:///NAME?socket=PATH",
        ));
    }
    match &query.socket {
        Some(socket) if !socket.as_os_str().is_empty() => Ok(Endpoint::Unix(socket.clone())),
        _ => Err(Error::invalid("a unix address has to end with ?socket=PATH")),
    }
}

fn tcp_endpoint(authority: &str, query: &Query) -> Result<Endpoint> {
    if query.socket.is_some() {
        return Err(Error::invalid("?socket= belongs to nbd+unix:// addresses"));
    }
    if authority.contains('@') {
        return Err(Error::unsupported("user names are not supported in NBD addresses"));
    }
    let bad_port = || Error::invalid("its port is not a number from 1 to 65535");
    let (host, port) = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(bad_port)?)),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None | Some("") => wire::PORT,
        Some(port) => port.parse().ok().filter(|&p| p != 0).ok_or_else(bad_port)?,
    };
    let host = string(decode(host)?, "the host")?;
    let host = if host.is_empty() { "localhost".to_owned() } else { host };
    Ok(Endpoint::Tcp { host, port })
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

fn string(bytes: Vec<u8>, what: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::invalid(format!("{what} is not UTF-8")))
}

/// Undoes `%41` and the like.
fn decode(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit =
            || bytes.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (digit(), digit()) {
            (Some(high), Some(low)) => out.push(high << 4 | low),
            _ => return Err(Error::invalid("after % there have to be two hexadecimal digits")),
        }
    }
    Ok(out)
}

fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                out.push(byte.into());
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
