//! The shape of a server's request path, tried out before there is a server: a qcow2 image over a source that is
//! slow to fetch, behind a loop that answers at once what is at hand and hands the rest to a few proxies. What it
//! is to show is that `Wait` is enough: nothing a connection's own thread does ever waits for the slow source.

use chart::{Disk, Source, Wait};
use format::qcow2::create::{New, create};
use format::qcow2::{Image, Options};
use io::memory::Memory;
use io::nbd::wire::{
    Code, Command, ExportNameReply, Greeting, HandshakeFlags, Headers, Opt, OptionHeader, OptionReply, Rep,
    Request, SimpleReply, TransmissionFlags,
};
use io::nbd::{Client, Options as Connect};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testkit::source::Slow;

/// What fetching takes.
const DELAY: Duration = Duration::from_millis(40);

#[derive(Default)]
struct Counts {
    at_once: AtomicU64,
    array: AtomicU64,
}

struct Loop {
    disk: Arc<Disk>,
    replies: Mutex<UnixStream>,
    counts: Arc<Counts>,
}

impl Loop {
    fn reply(&self, request: &Request, done: chart::Result<Vec<u8>>) {
        let mut out = Vec::new();
        let code = if done.is_ok() { Code::OK } else { Code::EIO };
        SimpleReply { code, cookie: request.cookie }.put(&mut out);
        out.extend(done.unwrap_or_default());
        // A client that has gone needs no reply.
        let _ = self.replies.lock().unwrap().write_all(&out);
    }

    fn act(&self, request: &Request, payload: &[u8], wait: Wait) -> chart::Result<Vec<u8>> {
        match (request.command, wait) {
            (Command::READ, _) => {
                let mut data = vec![0; request.len as usize];
                self.disk.read_at(request.offset, &mut data, wait).map(|()| data)
            }
            (Command::WRITE, Wait::Never) => {
                self.disk.overwrite_at(request.offset, payload).map(|()| Vec::new())
            }
            (Command::WRITE, Wait::Allowed) => {
                self.disk.write_at(request.offset, payload, wait).map(|()| Vec::new())
            }
            (_, Wait::Never) => Err(chart::Error::WOULD_BLOCK),
            (_, Wait::Allowed) => self.disk.flush().map(|()| Vec::new()),
        }
    }

    fn proxy(&self, array: &Mutex<Receiver<(Request, Vec<u8>)>>) {
        loop {
            let Ok((request, payload)) = array.lock().unwrap().recv() else { return };
            self.reply(&request, self.act(&request, &payload, Wait::Allowed));
        }
    }

    fn serve(self, mut requests: UnixStream) {
        let (to_array, array) = channel();
        let array = Mutex::new(array);
        std::thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(|| self.proxy(&array))));
            let mut head = [0; Request::COMPACT_LEN];
            while requests.read_exact(&mut head).is_ok() {
                let request = Request::parse(Headers::Simple, &head).unwrap();
                let mut payload = vec![0; request.payload_len(Headers::Simple) as usize];
                requests.read_exact(&mut payload).unwrap();
                if request.command == Command::DISC {
                    break;
                }
                match self.act(&request, &payload, Wait::Never) {
                    Err(e) if e.is_would_block() => {
                        self.counts.array.fetch_add(1, Ordering::Relaxed);
                        to_array.send((request, payload)).unwrap();
                    }
                    done => {
                        self.counts.at_once.fetch_add(1, Ordering::Relaxed);
                        self.reply(&request, done);
                    }
                }
            }
            drop(to_array);
        });
    }
}

/// The least of a handshake: whatever is not the old EXPORT_NAME is refused.
fn handshake(stream: &mut UnixStream, size: u64) {
    let mut out = Vec::new();
    Greeting { flags: HandshakeFlags::FIXED_NEWSTYLE }.put(&mut out);
    stream.write_all(&out).unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    loop {
        let mut head = [0; OptionHeader::LEN];
        stream.read_exact(&mut head).unwrap();
        let option = OptionHeader::parse(&head).unwrap();
        stream.read_exact(&mut vec![0; option.len as usize]).unwrap();
        let mut out = Vec::new();
        if option.option == Opt::EXPORT_NAME {
            let flags = TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FLUSH;
            ExportNameReply { size, flags }.put(false, &mut out);
            return stream.write_all(&out).unwrap();
        }
        OptionReply::put(option.option, Rep::ERR_UNSUP, &[], &mut out).unwrap();
        stream.write_all(&out).unwrap();
    }
}

/// A qcow2 image of which the first half is written, over a source that has to fetch everything again.
fn slow_image() -> (Arc<Disk>, Arc<Slow>, Vec<u8>) {
    let memory: Arc<dyn Source> = Arc::new(Memory::new("image", 0));
    let slow = Arc::new(Slow::new(memory, DELAY));
    create(slow.as_ref(), None, &New { cluster_bits: 12, ..New::of(1 << 20) }).unwrap();
    let options = Options { writable: true, ..Options::default() };
    let source: Arc<dyn Source> = slow.clone();
    let open = || Arc::new(Image::open(Arc::clone(&source), &options, &mut |_| unreachable!()).unwrap());
    let mut model = vec![0; 1 << 20];
    testkit::Rng::new(1).fill(&mut model[..512 << 10]);
    let disk = open().disk("image").unwrap();
    disk.write_at(0, &model[..512 << 10], Wait::Allowed).unwrap();
    disk.close().unwrap();
    slow.cool();
    (open().disk("image").unwrap(), slow, model)
}

#[test]
fn nothing_at_hand_waits_for_what_is_not() {
    let (disk, slow, model) = slow_image();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let counts = Arc::new(Counts::default());
    let (size, ours) = (disk.len(), Arc::clone(&counts));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        handshake(&mut stream, size);
        let replies = Mutex::new(stream.try_clone().unwrap());
        Loop { disk, replies, counts: ours }.serve(stream);
    });
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let client = Client::open(&uri, Connect::default()).unwrap();
    let read = |at: usize| {
        let (mut buf, begin) = (vec![0; 4096], Instant::now());
        client.read_at(at as u64, &mut buf, Wait::Allowed).unwrap();
        assert!(buf == model[at..at + 4096], "wrong bytes at {at}");
        begin.elapsed()
    };
    // Nothing is at hand: the table and the data have to be fetched.
    assert!(read(0) >= DELAY);
    let before = counts.array.load(Ordering::Relaxed);
    assert!(read(0) < DELAY, "what was read before is at hand");
    assert_eq!(counts.array.load(Ordering::Relaxed), before, "it went through the array");
    std::thread::scope(|scope| {
        // The same connection: cold reads keep all proxies busy, and warm ones overtake them.
        for i in 1..9 {
            scope.spawn(move || read(i * 8192));
        }
        std::thread::sleep(DELAY / 4);
        let warm: Vec<_> = (0..20).map(|_| read(0)).collect();
        let median = {
            let mut w = warm;
            w.sort();
            w[10]
        };
        assert!(median < DELAY / 4, "warm reads took {median:?} while others were fetched");
    });
    let (at_once, array) = (&counts.at_once, &counts.array);
    assert!(at_once.load(Ordering::Relaxed) >= 21 && array.load(Ordering::Relaxed) >= 9);
    // A write to a cluster that is there is done at once, one that must be allocated is not.
    slow.read_at(0, &mut vec![0; slow.len() as usize], Wait::Allowed).unwrap();
    client.write_at(600 << 10, &[7; 4096], Wait::Allowed).unwrap();
    let allocated = array.load(Ordering::Relaxed);
    client.write_at(600 << 10, &[8; 4096], Wait::Allowed).unwrap();
    client.write_at(0, &[9; 4096], Wait::Allowed).unwrap();
    assert_eq!(array.load(Ordering::Relaxed), allocated, "an overwrite went through the array");
    drop(client);
    server.join().unwrap();
}
