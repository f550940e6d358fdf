//! A server on a socket of its own, in this process.

use serve::Export;
use serve::nbd::{Config, Limits, Listener, Server, tls::Tls};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A server that listens until it is dropped.
pub(crate) struct Serving {
    pub(crate) server: Arc<Server>,
    pub(crate) socket: PathBuf,
    accepting: Option<JoinHandle<chart::Result<()>>>,
    _dir: tempfile::TempDir,
}

impl Serving {
    /// These exports, with these limits.
    pub(crate) fn start(exports: Vec<Export>, limits: Limits, tls: Option<Tls>) -> Serving {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = Listener::unix(&socket).unwrap();
        let server = Server::start(Config { limits, tls, ..Config::new(exports) }).unwrap();
        let accepting = Arc::clone(&server);
        let accepting = Some(std::thread::spawn(move || accepting.listen(&[listener])));
        Serving { server, socket, accepting, _dir: dir }
    }

    /// One disk, without a name.
    pub(crate) fn one(disk: Arc<chart::Disk>) -> Serving {
        Serving::start(vec![Export::new("", disk)], Limits::default(), None)
    }

    /// Where an export is.
    pub(crate) fn uri(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.socket.display())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.server.finish().unwrap();
        self.accepting.take().unwrap().join().unwrap().unwrap();
    }
}
