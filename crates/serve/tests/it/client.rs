//! A client that says exactly what it is told to, sound or not.

use io::nbd::wire::{
    BlockStatus, Chunk, ChunkKind, ClientFlags, Code, Command, CommandFlags, ErrorChunk, ExportInfo, Go,
    Greeting, Headers, Hole, MetaContext, MetaQuery, Opt, OptionHeader, OptionReply, Rep, Reply, Request,
    TransmissionFlags,
};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A server that keeps a client waiting for longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One connection, over a unix socket or over what comes between.
pub(crate) struct Client<S = UnixStream> {
    pub(crate) stream: S,
    pub(crate) headers: Headers,
    /// The reads that are not answered yet: where, and how long.
    pub(crate) reads: HashMap<u64, (u64, u64)>,
}

/// A reply, put together.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) cookie: u64,
    pub(crate) code: Code,
    pub(crate) data: Vec<u8>,
    pub(crate) status: Vec<BlockStatus>,
}

/// A plain request.
pub(crate) fn request(command: Command, cookie: u64, offset: u64, len: u64) -> Request {
    Request { flags: CommandFlags::NONE, command, cookie, offset, len }
}

/// Connects, and says nothing.
pub(crate) fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

impl Client {
    /// Connected and greeted, before any option.
    pub(crate) fn greeted(socket: &Path) -> Client {
        Client::over(connect(socket)).greet()
    }

    /// Past its handshake.
    pub(crate) fn attached(socket: &Path, name: &str, headers: Headers) -> Client {
        let mut client = Client::greeted(socket);
        client.agree(headers);
        client.go(name);
        client
    }

    /// The same, with these contexts.
    pub(crate) fn with_contexts(socket: &Path, name: &str, headers: Headers, contexts: &[&str]) -> Client {
        let mut client = Client::greeted(socket);
        client.agree(headers);
        let chosen = client.contexts(Opt::SET_META_CONTEXT, name, contexts);
        assert_eq!(chosen.len(), contexts.len());
        client.go(name);
        client
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Client { stream, headers: Headers::Simple, reads: HashMap::new() }
    }

    /// Hears the greeting, and answers it as a sound client does.
    pub(crate) fn greet(mut self) -> Self {
        let mut greeting = [0; Greeting::LEN];
        self.stream.read_exact(&mut greeting).unwrap();
        Greeting::parse(&greeting).unwrap();
        let flags = ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES;
        self.stream.write_all(&flags.0.to_be_bytes()).unwrap();
        self
    }

    /// Sends an option.
    pub(crate) fn option(&mut self, option: Opt, payload: &[u8]) {
        let mut out = Vec::new();
        OptionHeader::put(option, payload, &mut out).unwrap();
        self.stream.write_all(&out).unwrap();
    }

    /// Hears one reply to an option.
    pub(crate) fn heard(&mut self) -> Result<(Opt, Rep, Vec<u8>)> {
        let mut head = [0; OptionReply::LEN];
        self.stream.read_exact(&mut head)?;
        let OptionReply { option, reply, len } = OptionReply::parse(&head).unwrap();
        assert!(len <= 64 << 10, "{len} bytes of reply to {option}");
        let mut payload = vec![0; len as usize];
        self.stream.read_exact(&mut payload)?;
        Ok((option, reply, payload))
    }

    /// Sends an option and hears how it ends.
    pub(crate) fn ask(&mut self, option: Opt, payload: &[u8]) -> Rep {
        self.option(option, payload);
        self.outcome(option)
    }

    /// Hears how an option ends.
    pub(crate) fn outcome(&mut self, option: Opt) -> Rep {
        loop {
            let (of, reply, _) = self.heard().unwrap();
            assert_eq!(of, option);
            if reply == Rep::ACK || reply.is_error() {
                return reply;
            }
        }
    }

    /// Agrees on headers.
    pub(crate) fn agree(&mut self, headers: Headers) {
        let option = match headers {
            Headers::Simple => return,
            Headers::Structured => Opt::STRUCTURED_REPLY,
            Headers::Extended => Opt::EXTENDED_HEADERS,
        };
        assert_eq!(self.ask(option, &[]), Rep::ACK);
        self.headers = headers;
    }

    /// Chooses an export: its size, and what can be done with it.
    pub(crate) fn go(&mut self, name: &str) -> (u64, TransmissionFlags) {
        let mut payload = Vec::new();
        Go { name: name.to_owned(), infos: Vec::new() }.put(&mut payload).unwrap();
        self.option(Opt::GO, &payload);
        let mut found = None;
        loop {
            let (_, reply, payload) = self.heard().unwrap();
            match reply {
                Rep::ACK => return found.unwrap(),
                Rep::INFO => {
                    if let ExportInfo::Export { size, flags } = ExportInfo::parse(&payload).unwrap() {
                        found = Some((size, flags));
                    }
                }
                other => panic!("{other}: {}", String::from_utf8_lossy(&payload)),
            }
        }
    }

    /// Lists or chooses contexts.
    pub(crate) fn contexts(&mut self, option: Opt, name: &str, queries: &[&str]) -> Vec<MetaContext> {
        let queries = queries.iter().map(|&q| q.to_owned()).collect();
        let mut payload = Vec::new();
        MetaQuery { name: name.to_owned(), queries }.put(&mut payload).unwrap();
        self.option(option, &payload);
        let mut found = Vec::new();
        loop {
            let (_, reply, payload) = self.heard().unwrap();
            match reply {
                Rep::ACK => return found,
                Rep::META_CONTEXT => found.push(MetaContext::parse(&payload).unwrap()),
                other => panic!("{other}: {}", String::from_utf8_lossy(&payload)),
            }
        }
    }

    /// Sends a request, and whatever is to follow it.
    pub(crate) fn send(&mut self, request: &Request, payload: &[u8]) {
        let mut out = Vec::new();
        request.put(self.headers, &mut out).unwrap();
        out.extend_from_slice(payload);
        if request.command == Command::READ {
            self.reads.insert(request.cookie, (request.offset, request.len));
        }
        self.stream.write_all(&out).unwrap();
    }

    /// Hears a reply.
    pub(crate) fn answer(&mut self) -> Answer {
        let reads = &self.reads;
        let answer = hear(&mut self.stream, self.headers, |cookie| reads.get(&cookie).copied()).unwrap();
        self.reads.remove(&answer.cookie);
        answer
    }

    /// Sends a request and hears its reply, as the only one.
    pub(crate) fn call(&mut self, request: &Request, payload: &[u8]) -> Answer {
        self.send(request, payload);
        let answer = self.answer();
        assert_eq!(answer.cookie, request.cookie);
        answer
    }

    /// The same, when only its outcome matters.
    pub(crate) fn code(&mut self, request: &Request, payload: &[u8]) -> Code {
        self.call(request, payload).code
    }

    /// Reads.
    pub(crate) fn read(&mut self, offset: u64, len: u64) -> Vec<u8> {
        let answer = self.call(&request(Command::READ, 77, offset, len), &[]);
        assert_eq!(answer.code, Code::OK);
        answer.data
    }

    /// Writes.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let write = self.write_request(offset, data.len() as u64);
        assert_eq!(self.code(&write, data), Code::OK);
    }

    /// A sound request to write, in the headers agreed on.
    pub(crate) fn write_request(&self, offset: u64, len: u64) -> Request {
        let flags = CommandFlags::PAYLOAD_LEN.only_if(self.headers == Headers::Extended);
        Request { flags, ..request(Command::WRITE, 78, offset, len) }
    }

    /// Whether the server is still there and in step with this client.
    pub(crate) fn is_served(&mut self) -> bool {
        self.read(0, 512).len() == 512
    }

    /// Hears the connection end; whatever is said before is skipped.
    pub(crate) fn hears_the_end(&mut self) {
        let mut rest = vec![0; 64 << 10];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("the connection goes on"),
                Err(_) => return,
            }
        }
    }

    /// Says goodbye, and hears the end.
    pub(crate) fn leave(mut self) {
        self.send(&request(Command::DISC, 0, 0, 0), &[]);
        self.hears_the_end();
    }
}

/// Hears a reply. `read_of` tells where the read of a cookie begins, and how long it is.
pub(crate) fn hear(
    from: &mut impl Read,
    headers: Headers,
    read_of: impl Fn(u64) -> Option<(u64, u64)>,
) -> Result<Answer> {
    let mut answer: Option<Answer> = None;
    let mut covered = 0;
    loop {
        let mut head = [0; Chunk::EXTENDED_LEN];
        from.read_exact(&mut head[..4])?;
        let len = Reply::header_len(headers, [head[0], head[1], head[2], head[3]]).unwrap();
        from.read_exact(&mut head[4..len])?;
        let reply = Reply::parse(headers, &head[..len]).unwrap();
        let read = read_of(reply.cookie());
        let room = read.map_or(0, |(_, len)| len as usize);
        let new = || Answer { cookie: reply.cookie(), code: Code::OK, data: Vec::new(), status: Vec::new() };
        let answered = answer.get_or_insert_with(new);
        assert_eq!(answered.cookie, reply.cookie(), "replies are mixed up");
        match reply {
            Reply::Simple(simple) => {
                answered.code = simple.code;
                if simple.code == Code::OK {
                    answered.data = vec![0; room];
                    from.read_exact(&mut answered.data)?;
                }
                break;
            }
            Reply::Chunk(chunk) => {
                if matches!(chunk.kind, ChunkKind::OFFSET_DATA | ChunkKind::OFFSET_HOLE) {
                    answered.data.resize(room, 0xee);
                }
                covered += take_chunk(from, &chunk, read, answered)?;
                if chunk.is_last() {
                    let missing = answered.code == Code::OK && covered != room as u64;
                    assert!(!missing, "{covered} bytes of {room} in {answered:?}");
                    break;
                }
            }
        }
    }
    Ok(answer.unwrap())
}

/// Takes in a chunk; how much of the read it tells of.
fn take_chunk(
    from: &mut impl Read,
    chunk: &Chunk,
    read: Option<(u64, u64)>,
    into: &mut Answer,
) -> Result<u64> {
    assert!(chunk.len <= 64 << 20, "a chunk of {} bytes", chunk.len);
    let mut payload = vec![0; chunk.len as usize];
    from.read_exact(&mut payload)?;
    let place = |offset: u64, len: u64| {
        let (start, whole) = read.expect("data for what was not read");
        let from = offset.checked_sub(start).expect("data before the read");
        assert!(from + len <= whole, "data behind the read");
        from as usize..(from + len) as usize
    };
    match chunk.kind {
        ChunkKind::NONE => assert_eq!(chunk.len, 0),
        ChunkKind::OFFSET_DATA => {
            let (offset, data) = payload.split_first_chunk::<8>().unwrap();
            let range = place(u64::from_be_bytes(*offset), data.len() as u64);
            into.data[range].copy_from_slice(data);
            return Ok(data.len() as u64);
        }
        ChunkKind::OFFSET_HOLE => {
            let hole = Hole::parse(&payload).unwrap();
            into.data[place(hole.offset, u64::from(hole.len))].fill(0);
            return Ok(u64::from(hole.len));
        }
        ChunkKind::BLOCK_STATUS | ChunkKind::BLOCK_STATUS_EXT => {
            into.status.push(BlockStatus::parse(chunk.kind, &payload).unwrap());
        }
        kind => into.code = ErrorChunk::parse(kind, &payload).unwrap().code,
    }
    Ok(0)
}
