//! TLS for `nbds` addresses: X.509 through rustls, the server always verified.

use super::uri::{Endpoint, Uri};
use chart::{Error, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// The names of the files in a certificates directory, as libnbd and QEMU call them.
const CA: &str = "ca-cert.pem";
const CLIENT_CERTIFICATE: &str = "client-cert.pem";
const CLIENT_KEY: &str = "client-key.pem";

/// A session with the server of `uri`, not yet begun.
pub(super) fn session(uri: &Uri) -> Result<ClientConnection> {
    let Some(directory) = &uri.tls_certificates else {
        return Err(Error::invalid(
            "an nbds address has to say whom to trust: add ?tls-certificates=DIR, a directory with ca-cert.pem",
        ));
    };
    let name = match (&uri.tls_hostname, &uri.endpoint) {
        (Some(name), _) => name.clone(),
        (None, Endpoint::Tcp { host, .. }) => host.clone(),
        (None, Endpoint::Unix(_)) => "localhost".to_owned(),
    };
    let bad_name = |e| Error::invalid(format!("{name:?} is no host name for TLS")).caused_by(e);
    let server = ServerName::try_from(name.clone()).map_err(bad_name)?;
    ClientConnection::new(config(directory)?, server).map_err(refused)
}

fn config(directory: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&directory.join(CA))? {
        roots.add(certificate).map_err(refused)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_root_certificates(roots);
    let (certificate, key) = (directory.join(CLIENT_CERTIFICATE), directory.join(CLIENT_KEY));
    let config = if certificate.exists() {
        let key = PrivateKeyDer::from_pem_file(&key).map_err(|e| unreadable(&key, &e))?;
        builder.with_client_auth_cert(certificates(&certificate)?, key).map_err(refused)?
    } else {
        builder.with_no_client_auth()
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let parsed =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let found = parsed.map_err(|e| unreadable(path, &e))?;
    if found.is_empty() { Err(Error::invalid("it holds no certificate").in_path(path)) } else { Ok(found) }
}

fn unreadable(path: &Path, e: &rustls::pki_types::pem::Error) -> Error {
    Error::invalid(format!("cannot be read as PEM: {e}")).in_path(path)
}

fn refused(e: rustls::Error) -> Error {
    Error::invalid("TLS cannot be set up").caused_by(e)
}
