//! The server: what is served, its clients, and its end.

use super::conn::Conn;
use super::handshake::{Handshake, Outcome, Shaken};
use super::limits::Limits;
use super::listen::Listener;
use super::means::Means;
use super::notices::{Notice, Notices, Severity};
use super::talk::{Job, Proxy, Talk};
use super::tls::Tls;
use crate::array::{Array, Proxies};
use crate::{Counters, Export};
use chart::{Error, Kind, Result, ResultExt as _};
use io::nbd::wire::STRING_MAX;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

/// What a connection's thread needs of stack; most of it is never touched.
const STACK: usize = 256 << 10;

/// How long the last notices may take to be heard.
const LAST_NOTICES: std::time::Duration = std::time::Duration::from_secs(1);

/// What to serve, and how.
pub struct Config {
    /// The exports. Names must differ.
    pub exports: Vec<Export>,
    /// The limits.
    pub limits: Limits,
    /// How many proxies carry out what cannot be answered at once.
    pub proxies: usize,
    /// Certificates; with them, nothing but TLS is spoken.
    pub tls: Option<Tls>,
    /// Whether the server ends when those have gone who have chosen an export.
    pub once: bool,
    /// Hears of what failed, and of connections that broke the protocol or could not be served, on a thread of its own.
    pub notice: Box<Notice>,
}

impl Config {
    /// With every limit at its default.
    pub fn new(exports: Vec<Export>) -> Self {
        Config {
            exports,
            limits: Limits::default(),
            proxies: 16,
            tls: None,
            once: false,
            notice: Box::new(|_, _| ()),
        }
    }
}

/// A server.
pub struct Server {
    /// In the order in which they were offered; names differ.
    exports: RwLock<Vec<Arc<Export>>>,
    limits: Arc<Limits>,
    tls: Option<Tls>,
    once: bool,
    notices: Arc<Notices>,
    counters: Arc<Counters>,
    array: Arc<Array<Job>>,
    means: Arc<Means>,
    proxies: Mutex<Option<Proxies>>,
    clients: Mutex<HashMap<u64, Arc<Conn>>>,
    left: Condvar,
    next: AtomicU64,
    /// Whether a client has chosen an export.
    was_used: AtomicBool,
    stopping: AtomicBool,
    bell: OwnedFd,
}

impl Server {
    /// Starts the proxies. Clients come with [`Server::listen`] and [`Server::welcome`].
    pub fn start(config: Config) -> Result<Arc<Server>> {
        let mut exports = Vec::new();
        config.exports.into_iter().try_for_each(|export| add(&mut exports, export))?;
        let (limits, counters) = (Arc::new(config.limits), Arc::new(Counters::default()));
        let array: Arc<Array<Job>> = Arc::new(Array::new(config.proxies));
        array.set_several(exports.len() > 1);
        let means = Means::new(limits.total_bytes);
        let proxies = Proxies::start(&array, config.proxies, || {
            let mut proxy = Proxy::new(Arc::clone(&limits), Arc::clone(&counters), &means);
            move |job| proxy.act(job)
        });
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(std::io::Error::from);
        Ok(Arc::new(Server {
            exports: RwLock::new(exports),
            limits,
            tls: config.tls,
            once: config.once,
            notices: Arc::new(Notices::new(config.notice)),
            counters,
            array,
            means,
            proxies: Mutex::new(Some(proxies.during(|| "starting the proxies".to_owned())?)),
            clients: Mutex::default(),
            left: Condvar::new(),
            next: AtomicU64::new(1),
            was_used: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            bell: bell.during(|| "starting the server".to_owned())?,
        }))
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What is served now.
    pub fn exports(&self) -> Vec<Arc<Export>> {
        self.exports.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves one more, for whoever asks from now on.
    pub fn offer(&self, export: Export) -> Result<()> {
        let mut exports = self.exports.write().unwrap_or_else(PoisonError::into_inner);
        add(&mut exports, export)?;
        self.array.set_several(exports.len() > 1);
        Ok(())
    }

    /// Serves one no more to whoever asks from now on. Those who have chosen it keep it.
    pub fn withdraw(&self, name: &str) -> Option<Arc<Export>> {
        let mut exports = self.exports.write().unwrap_or_else(PoisonError::into_inner);
        let at = exports.iter().position(|e| e.name == name)?;
        let export = exports.remove(at);
        export.withdraw();
        self.array.set_several(exports.len() > 1);
        Some(export)
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn notices(&self) -> Arc<Notices> {
        Arc::clone(&self.notices)
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The export of a name. The empty name stands for the first where none is called that.
    pub(super) fn export(&self, name: &str) -> Option<Arc<Export>> {
        let exports = self.exports.read().unwrap_or_else(PoisonError::into_inner);
        let named = exports.iter().find(|e| e.name == name);
        named.or_else(|| exports.first().filter(|_| name.is_empty())).cloned()
    }

    pub(super) fn is_export(&self, name: &str, export: &Arc<Export>) -> bool {
        self.export(name).is_some_and(|e| Arc::ptr_eq(&e, export))
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Arc<Conn>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts clients until [`Server::stop`].
    pub fn listen(self: &Arc<Self>, listeners: &[Listener]) -> Result<()> {
        while !self.stopping.load(SeqCst) {
            let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
            fds.extend(listeners.iter().map(|l| PollFd::from_borrowed_fd(l.as_fd(), PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(std::io::Error::from(e)).during(|| "waiting for clients".to_owned()),
            }
            let ready: Vec<bool> = fds.iter().skip(1).map(|fd| !fd.revents().is_empty()).collect();
            for (listener, _) in listeners.iter().zip(ready).filter(|(_, ready)| *ready) {
                match listener.accept() {
                    Ok(Some(socket)) => self.welcome(socket),
                    Ok(None) => {}
                    Err(e) => {
                        let what = format!("a client could not be accepted: {e}");
                        self.notices.tell(Severity::Failure, &what);
                        // Out of descriptors, most likely: trying again at once would not help.
                        std::thread::sleep(std::time::Duration::from_millis(50));
                    }
                }
            }
        }
        Ok(())
    }

    /// Serves a connected socket on a thread of its own.
    pub fn welcome(self: &Arc<Self>, socket: OwnedFd) {
        self.counters.accepted.fetch_add(1, Relaxed);
        if let Err(e) = self.begin(socket) {
            self.counters.turned_away.fetch_add(1, Relaxed);
            // That there are too many is the clients' doing.
            let severity =
                if e.kind() == Kind::Unavailable { Severity::Information } else { Severity::Failure };
            self.notices.tell(severity, &format!("a client was turned away: {e}"));
        }
    }

    fn begin(self: &Arc<Self>, socket: OwnedFd) -> Result<()> {
        let conn = self.enter(socket)?;
        let (server, client) = (Arc::clone(self), Arc::clone(&conn));
        let thread = std::thread::Builder::new().name(format!("client-{}", conn.client)).stack_size(STACK);
        let spawned = thread.spawn(move || server.attend(client));
        if spawned.is_err() {
            self.depart(conn.client);
        }
        spawned.map(drop).during(|| "starting a thread".to_owned())
    }

    /// Serves a connected socket on this thread, to its end.
    pub fn serve(self: &Arc<Self>, socket: OwnedFd) -> Result<()> {
        self.counters.accepted.fetch_add(1, Relaxed);
        let conn = self.enter(socket)?;
        self.attend(conn);
        Ok(())
    }

    fn enter(&self, socket: OwnedFd) -> Result<Arc<Conn>> {
        let mut clients = self.clients();
        if clients.len() >= self.limits.connections {
            return Err(Error::unavailable(format!("there are {} already", clients.len())));
        }
        if self.stopping.load(SeqCst) {
            return Err(Error::unavailable("the server is stopping"));
        }
        let conn = Arc::new(Conn::new(self.next.fetch_add(1, Relaxed), socket, &self.means)?);
        clients.insert(conn.client, Arc::clone(&conn));
        self.counters.connections.fetch_add(1, Relaxed);
        Ok(conn)
    }

    /// A client goes on over another socket: TLS has come between.
    pub(super) fn replace(&self, old: &Conn, socket: OwnedFd) -> Result<Arc<Conn>> {
        let conn = Arc::new(Conn::new(old.client, socket, &self.means)?);
        let mut clients = self.clients();
        clients.insert(conn.client, Arc::clone(&conn));
        if self.stopping.load(SeqCst) {
            conn.stop();
        }
        Ok(conn)
    }

    fn depart(&self, client: u64) {
        self.clients().remove(&client);
        self.counters.connections.fetch_sub(1, Relaxed);
        self.left.notify_all();
        if self.once && self.was_used.load(SeqCst) && self.is_deserted() {
            self.stop();
        }
    }

    /// One client, from its handshake to its end.
    fn attend(self: &Arc<Self>, conn: Arc<Conn>) {
        /// However it ends, by a panic too, the client is gone then.
        struct Leaving<'s>(&'s Server, u64);
        impl Drop for Leaving<'_> {
            fn drop(&mut self) {
                self.0.depart(self.1);
            }
        }
        let leaving = Leaving(self, conn.client);
        if let Err(e) = self.converse(conn) {
            self.counters.broken.fetch_add(1, Relaxed);
            self.notices.tell(Severity::Information, &format!("client {}: {e}", leaving.1));
        }
    }

    fn converse(self: &Arc<Self>, conn: Arc<Conn>) -> Result<()> {
        let Shaken { outcome, conn, pump } = Handshake::new(self, conn, &self.limits).run();
        let talked = outcome.and_then(|outcome| match outcome {
            Outcome::Ready(session) => {
                self.was_used.store(true, SeqCst);
                Talk::new(&conn, session, &self.limits, &self.counters, &self.array).run()
            }
            Outcome::Over => Ok(self.limits.drain),
        });
        match talked {
            Ok(patience) => conn.close(patience),
            // Who breaks the protocol is not waited for.
            Err(_) => conn.leave(),
        }
        if let Some(pump) = pump {
            // A pump that panicked has said so itself, and moves nothing any more.
            let _ = pump.join();
        }
        talked.map(drop)
    }

    /// Accepts no more clients and hears no more requests. What is under way is finished: see [`Server::finish`].
    pub fn stop(&self) {
        self.stopping.store(true, SeqCst);
        // It can only fail when the bell has rung four thousand million million times unheard.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        self.clients().values().for_each(|conn| conn.stop());
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Whether no client is connected.
    pub fn is_deserted(&self) -> bool {
        self.clients().is_empty()
    }

    /// Stops, lets every client have its replies, and makes everything durable.
    pub fn finish(&self) -> Result<()> {
        self.stop();
        let mut clients = self.clients();
        while !clients.is_empty() {
            clients = self.left.wait(clients).unwrap_or_else(PoisonError::into_inner);
        }
        drop(clients);
        let proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(proxies) = proxies {
            proxies.finish();
        }
        // All are flushed, whatever became of the others; the first failure is told.
        let flushed: Vec<Result<()>> =
            self.exports().iter().filter(|e| e.writable).map(|e| e.flush()).collect();
        self.notices.finish(LAST_NOTICES);
        flushed.into_iter().collect()
    }
}

/// Adds an export, if it can be told to clients and no other has its name.
fn add(exports: &mut Vec<Arc<Export>>, mut export: Export) -> Result<()> {
    if export.name.len() > STRING_MAX || export.name.contains('\0') {
        let len = export.name.len();
        let what =
            format!("a name of {len} bytes for an export: {STRING_MAX} are the most, and none of them NUL");
        return Err(Error::invalid(what));
    }
    // For a person, who knows more where it is printed.
    let fits = export.description.floor_char_boundary(STRING_MAX);
    export.description.truncate(fits);
    if exports.iter().any(|e| e.name == export.name) {
        return Err(Error::conflict(format!("two exports are called {:?}", export.name)));
    }
    exports.push(Arc::new(export));
    Ok(())
}
