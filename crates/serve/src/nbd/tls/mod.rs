//! TLS by X.509, through rustls.
//!
//! A connection under TLS is served over a pair of sockets: one end is the connection's own, as if there were no
//! TLS, at the other a `pump` encrypts and decrypts. So the path of a request is one and the same.

mod pump;

use super::conn::Conn;
use chart::{Error, Result, ResultExt as _};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The names of the files in a certificates directory, as QEMU, libnbd and GnuTLS call them.
const CA: &str = "ca-cert.pem";
const SERVER_CERTIFICATE: &str = "server-cert.pem";
const SERVER_KEY: &str = "server-key.pem";

/// What a server shows its clients, and whom it believes.
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    /// Reads `server-cert.pem` and `server-key.pem`; with `verify`, clients must show a certificate that
    /// `ca-cert.pem` vouches for.
    pub fn load(directory: &Path, verify: bool) -> Result<Tls> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| refused(&e))?;
        let builder = if verify {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&directory.join(CA))? {
                roots.add(certificate).map_err(|e| refused(&e))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| refused(&e))?)
        } else {
            builder.with_no_client_auth()
        };
        let key = directory.join(SERVER_KEY);
        let secret = PrivateKeyDer::from_pem_file(&key).map_err(|e| unreadable(&key, e))?;
        let chain = certificates(&directory.join(SERVER_CERTIFICATE))?;
        let config = builder.with_single_cert(chain, secret).map_err(|e| refused(&e))?;
        Ok(Tls(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let parsed = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = parsed.map_err(|e| unreadable(path, e))?;
    if found.is_empty() { Err(Error::invalid("it holds no certificate").in_path(path)) } else { Ok(found) }
}

fn unreadable(path: &Path, e: pem::Error) -> Error {
    match e {
        pem::Error::Io(e) => Error::from(e).in_path(path),
        e => Error::invalid(format!("cannot be read as PEM: {e}")).in_path(path),
    }
}

fn refused(e: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("TLS cannot be set up: {e}"))
}

/// The other side of a connection under TLS.
pub(super) struct Tunnel {
    /// The plain end.
    pub(super) inner: OwnedFd,
    /// What moves bytes between that and the client.
    pub(super) pump: JoinHandle<()>,
}

/// Shakes hands over a connection on which the client has asked for TLS.
pub(super) fn begin(tls: &Tls, conn: &Conn, deadline: Instant, drain: Duration) -> Result<Tunnel> {
    let during = || "TLS".to_owned();
    let session = ServerConnection::new(Arc::clone(&tls.0)).map_err(|e| refused(&e))?;
    let net = conn.socket().try_clone().during(during)?;
    let mut pump = pump::Pump::new(session, net);
    pump.shake_hands(deadline)?;
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (inner, other) = pair.map_err(std::io::Error::from).during(during)?;
    let thread = std::thread::Builder::new().name(format!("tls-{}", conn.client));
    let pump = thread.spawn(move || pump.run(&other, drain)).during(during)?;
    Ok(Tunnel { inner, pump })
}
