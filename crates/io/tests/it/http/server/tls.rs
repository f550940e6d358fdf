//! Certificates of our own, made by openssl.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use testkit::peer;

/// Makes an authority and a certificate for `localhost`, named as NBD servers want them too. Where the
/// authority's certificate is.
pub(crate) fn certificates(directory: &Path) -> PathBuf {
    let at = |name: &str| directory.join(name).display().to_string();
    let (ca, ca_key) = (at("ca-cert.pem"), at("ca-key.pem"));
    let (certificate, key, request, extensions) =
        (at("server-cert.pem"), at("server-key.pem"), at("request"), at("extensions"));
    std::fs::write(&extensions, "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=test-ca", "-keyout", &ca_key, "-out", &ca];
    peer::run("openssl", &[&authority[..], &new].concat());
    let server = ["req", "-subj", "/CN=localhost", "-keyout", &key, "-out", &request];
    peer::run("openssl", &[&server[..], &new].concat());
    let sign = ["x509", "-req", "-days", "2", "-in", &request, "-CA", &ca, "-CAkey", &ca_key];
    peer::run(
        "openssl",
        &[&sign[..], &["-CAcreateserial", "-extfile", &extensions, "-out", &certificate]].concat(),
    );
    ca.into()
}

/// A server's side of it.
pub(crate) fn config(directory: &Path) -> Arc<rustls::ServerConfig> {
    let chain = CertificateDer::pem_file_iter(directory.join("server-cert.pem")).unwrap();
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("server-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap())
}
