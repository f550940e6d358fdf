//! A small HTTP server that does as it is told.

pub(crate) mod tls;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What to do with one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Serve the range.
    Serve,
    /// Serve it after a while.
    Slow(Duration),
    /// Serve it with these headers instead of the usual ones.
    With(&'static str),
    /// Serve the whole, whatever was asked.
    Whole,
    /// The same with these headers.
    WholeWith(&'static str),
    /// Serve the range, but say that the object is longer.
    Longer,
    /// Answer with a status, and these headers as well.
    Status(u16, &'static str),
    /// Send so many bytes of the body and hang up.
    Truncate(usize),
    /// Hang up.
    Close,
    /// Serve another range.
    WrongRange,
    /// Say another length than the range has.
    WrongLength,
    /// Not HTTP.
    Garbage,
    /// Begin and do not go on.
    Stall,
    /// Serve the range, a byte after each such pause.
    Drip(Duration),
    /// Redirect to where the headers say.
    Redirect,
}

/// One request.
pub(crate) struct Seen {
    /// How many came before it.
    pub(crate) number: usize,
    pub(crate) headers: String,
    /// How many bytes it asks for.
    pub(crate) asked: u64,
    range: Option<(u64, u64)>,
}

impl Seen {
    pub(crate) fn has(&self, header: &str) -> bool {
        self.headers.lines().any(|l| l.to_lowercase().starts_with(&format!("{header}:")))
    }
}

type Decide = Box<dyn Fn(&Seen) -> Act + Send + Sync>;

struct Shared {
    object: Vec<u8>,
    decide: Mutex<Arc<Decide>>,
    headers: Mutex<String>,
    requests: AtomicUsize,
    over: AtomicBool,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// The server, over when dropped.
pub(crate) struct Server {
    port: u16,
    shared: Arc<Shared>,
}

/// Bytes that differ from their neighbours and from block to block.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 4096 * 13 + i / 251) as u8).collect()
}

impl Server {
    pub(crate) fn new(object: Vec<u8>, decide: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::start(object, Box::new(decide), None)
    }

    pub(crate) fn tls(object: Vec<u8>, certificates: &Path) -> Self {
        Self::start(object, Box::new(|_| Act::Serve), Some(tls::config(certificates)))
    }

    fn start(object: Vec<u8>, decide: Decide, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            object,
            decide: Mutex::new(Arc::new(decide)),
            headers: Mutex::new("ETag: \"one\"\r\n".into()),
            requests: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            tls,
        });
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ours.over.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&ours);
                std::thread::spawn(move || connection(&shared, stream));
            }
        });
        Server { port, shared }
    }

    /// Instead of the usual `ETag: "one"`.
    pub(crate) fn with_headers(self, headers: &str) -> Self {
        *self.shared.headers.lock().unwrap() = headers.into();
        self
    }

    pub(crate) fn with_act(self, decide: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        *self.shared.decide.lock().unwrap() = Arc::new(Box::new(decide));
        self
    }

    pub(crate) fn url(&self) -> String {
        let s = if self.shared.tls.is_some() { "s" } else { "" };
        let host = if self.shared.tls.is_some() { "localhost" } else { "127.0.0.1" };
        format!("http{s}://{host}:{}/object", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn connection(shared: &Shared, stream: TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_nodelay(true).unwrap();
    let stream: Box<dyn Stream> = match &shared.tls {
        Some(config) => {
            let session = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
            Box::new(rustls::StreamOwned::new(session, stream))
        }
        None => Box::new(stream),
    };
    let mut stream = BufReader::new(stream);
    while !shared.over.load(Ordering::Relaxed) {
        let mut headers = String::new();
        loop {
            let mut line = String::new();
            match stream.read_line(&mut line) {
                Ok(n) if n > 0 => {}
                _ => return,
            }
            if line == "\r\n" {
                break;
            }
            headers.push_str(&line);
        }
        let number = shared.requests.fetch_add(1, Ordering::Relaxed);
        let range = headers.lines().find_map(|l| {
            let (first, last) = l
                .to_lowercase()
                .strip_prefix("range: bytes=")?
                .split_once('-')
                .map(|(a, b)| (a.trim().parse().unwrap(), b.trim().parse::<u64>().unwrap()))?;
            Some((first, last))
        });
        let asked = range.map_or(0, |(first, last)| last + 1 - first);
        let seen = Seen { number, headers, asked, range };
        let decide = Arc::clone(&shared.decide.lock().unwrap());
        if !answer(shared, stream.get_mut().as_mut(), &seen, decide(&seen)) {
            return;
        }
    }
}

/// Whether the connection goes on.
fn answer(shared: &Shared, out: &mut dyn Stream, seen: &Seen, act: Act) -> bool {
    let usual = shared.headers.lock().unwrap().clone();
    let total = shared.object.len() as u64;
    let (first, last) = seen.range.unwrap_or((0, u64::MAX));
    let last = last.min(total.saturating_sub(1));
    let slice = |first: u64, last: u64| &shared.object[first as usize..=last as usize];
    let send = |out: &mut dyn Stream, status: &str, headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        out.write_all(head.as_bytes()).and_then(|()| out.write_all(body)).and_then(|()| out.flush()).is_ok()
    };
    let part = |out: &mut dyn Stream, headers: &str, total: u64| {
        if first >= total {
            return send(out, "416 No", &format!("Content-Range: bytes */{total}\r\n{headers}"), &[]);
        }
        let headers = format!("Content-Range: bytes {first}-{last}/{total}\r\n{headers}");
        send(out, "206 Partial Content", &headers, slice(first, last))
    };
    match act {
        Act::Serve => part(out, &usual, total),
        Act::Slow(delay) => {
            std::thread::sleep(delay);
            part(out, &usual, total)
        }
        Act::With(headers) => part(out, headers, total),
        Act::Whole => send(out, "200 OK", &usual, &shared.object),
        Act::WholeWith(headers) => send(out, "200 OK", headers, &shared.object),
        Act::Longer => part(out, &usual, total + 1),
        Act::Status(status, headers) => send(out, &format!("{status} As Told"), headers, b"no"),
        Act::Truncate(most) => {
            let body = slice(first, last);
            let head = format!(
                "HTTP/1.1 206 OK\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{total}\r\n{usual}\r\n",
                body.len()
            );
            // A body that was no longer than that comes whole.
            let _ =
                out.write_all(head.as_bytes()).and_then(|()| out.write_all(&body[..most.min(body.len())]));
            let _ = out.flush();
            body.len() <= most
        }
        Act::Close => false,
        Act::WrongRange => {
            let headers = format!("Content-Range: bytes {}-{last}/{total}\r\n{usual}", first + 1);
            send(out, "206 OK", &headers, slice(first + 1, last))
        }
        Act::WrongLength => {
            let headers = format!("Content-Range: bytes {first}-{last}/{total}\r\n{usual}");
            send(out, "206 OK", &headers, slice(first + 1, last))
        }
        Act::Garbage => {
            let _ = out.write_all(b"\0\x01SSH-2.0-nothing\r\n\r\n").and_then(|()| out.flush());
            false
        }
        Act::Stall => {
            let _ = out.write_all(b"HTTP/1.1 206 OK\r\nContent-").and_then(|()| out.flush());
            std::thread::sleep(Duration::from_millis(700));
            false
        }
        Act::Drip(pause) => {
            let body = slice(first, last);
            let head = format!(
                "HTTP/1.1 206 OK\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{total}\r\n{usual}\r\n",
                body.len()
            );
            let mut gone = out.write_all(head.as_bytes()).is_err();
            for byte in body {
                std::thread::sleep(pause);
                gone = gone || out.write_all(&[*byte]).and_then(|()| out.flush()).is_err();
                if gone || shared.over.load(Ordering::Relaxed) {
                    return false;
                }
            }
            true
        }
        Act::Redirect => send(out, "302 Found", &usual, &[]),
    }
}
