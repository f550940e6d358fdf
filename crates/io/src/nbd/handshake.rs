//! The client's side of the handshake: from a fresh socket to an export that is ready, or to a list of them.

use super::Options;
use super::link::{Inbox, Link};
use super::socket::Socket;
use super::uri::Uri;
use super::wire::{
    BASE_ALLOCATION, BlockSize, ClientFlags, EXPORT_NAME_ZEROES, ExportInfo, ExportNameReply, Go, Greeting,
    HandshakeFlags, Headers, Info, Listed, MetaContext, MetaQuery, OPTION_PAYLOAD_MAX, Opt, OptionHeader,
    OptionReply, Rep, TransmissionFlags,
};
use chart::{Error, Result};
use std::time::Instant;

/// The most replies one option may have: exports of a list, contexts of an export.
const REPLIES_MAX: usize = 16 << 10;

/// What a server says of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The name it goes by at the server.
    pub name: String,
    /// Its description for a person; may be empty.
    pub description: String,
    /// Its size in bytes.
    pub size: u64,
    /// What can be done with it.
    pub flags: TransmissionFlags,
    /// The sizes requests keep to; the defaults where the server named none.
    pub block: BlockSize,
    /// Which headers were agreed on.
    pub headers: Headers,
    /// The metadata contexts the server offers for it.
    pub contexts: Vec<String>,
    /// Whether the connection is under TLS.
    pub tls: bool,
}

/// A connection whose handshake is done.
pub(super) struct Ready {
    pub(super) link: Link,
    pub(super) inbox: Inbox,
    pub(super) export: Export,
    /// The number of `base:allocation`, where the server has it.
    pub(super) allocation: Option<u32>,
}

/// Connects and enters the transmission phase, with the best headers and all that tells holes from data.
pub(super) fn open(uri: &Uri, options: &Options) -> Result<Ready> {
    let mut talk = Talk::begin(uri, options)?;
    let headers = talk.headers(Headers::Extended)?;
    let (mut contexts, mut allocation) = (Vec::new(), None);
    if headers != Headers::Simple {
        let listed = talk.contexts(Opt::LIST_META_CONTEXT, &uri.export, &[])?;
        contexts = listed.into_iter().map(|c| c.name).collect();
        let chosen = talk.contexts(Opt::SET_META_CONTEXT, &uri.export, &[BASE_ALLOCATION])?;
        allocation = chosen.iter().find(|c| c.name == BASE_ALLOCATION).map(|c| c.id);
    }
    let export = Export { contexts, ..talk.enter(&uri.export, headers)? };
    talk.ready(export, allocation, options)
}

/// The same, with headers no better than `best` and no metadata contexts.
pub(super) fn open_plainly(uri: &Uri, options: &Options, best: Headers) -> Result<Ready> {
    let mut talk = Talk::begin(uri, options)?;
    let headers = talk.headers(best)?;
    let export = talk.enter(&uri.export, headers)?;
    talk.ready(export, None, options)
}

/// Connects and asks what there is.
pub(super) fn list(uri: &Uri, options: &Options) -> Result<Vec<Listed>> {
    let mut talk = Talk::begin(uri, options)?;
    let mut found = Vec::new();
    let end = talk.option(Opt::LIST, &[], |reply, payload| {
        if reply == Rep::SERVER {
            found.push(Listed::parse(payload)?);
        }
        Ok(())
    })?;
    let _ = talk.say(Opt::ABORT, &[]);
    match end {
        Rep::ACK => Ok(found),
        refusal => Err(talk.refused(Opt::LIST, refusal)),
    }
}

/// A handshake in progress.
struct Talk {
    link: Link,
    inbox: Inbox,
    deadline: Instant,
    no_zeroes: bool,
    /// The words of the last refusal.
    words: String,
}

impl Talk {
    fn begin(uri: &Uri, options: &Options) -> Result<Self> {
        let deadline = Instant::now() + options.connect_timeout;
        let session = if uri.tls { Some(super::tls::session(uri)?) } else { None };
        let socket = Socket::connect(&uri.endpoint, options.connect_timeout)?;
        socket.set_timeout(options.connect_timeout)?;
        let (link, inbox) = (Link::new(socket), Inbox::default());
        let mut talk = Talk { link, inbox, deadline, no_zeroes: false, words: String::new() };
        let mut greeting = [0; Greeting::LEN];
        talk.read(&mut greeting)?;
        let greeting = Greeting::parse(&greeting)?;
        if !greeting.flags.has(HandshakeFlags::FIXED_NEWSTYLE) {
            return Err(Error::unsupported("the NBD server does not speak the fixed newstyle protocol"));
        }
        talk.no_zeroes = greeting.flags.has(HandshakeFlags::NO_ZEROES);
        let mut out = Vec::new();
        (ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES.only_if(talk.no_zeroes)).put(&mut out);
        talk.link.send(&out, &[], deadline)?;
        if let Some(session) = session {
            talk.start_tls(session)?;
        }
        Ok(talk)
    }

    fn start_tls(&mut self, session: rustls::ClientConnection) -> Result<()> {
        match self.option(Opt::STARTTLS, &[], |_, _| Ok(()))? {
            Rep::ACK => {}
            refusal => return Err(self.refused(Opt::STARTTLS, refusal)),
        }
        // Bytes that came before the handshake could have been put there by anyone.
        if self.inbox.has_more() {
            return Err(Error::corrupt("the NBD server sent bytes between its consent to TLS and TLS"));
        }
        self.link.start_tls(session, self.deadline)
    }

    fn read(&mut self, out: &mut [u8]) -> Result<()> {
        self.inbox.read_exact(&self.link, out, self.deadline)
    }

    fn say(&mut self, option: Opt, payload: &[u8]) -> Result<()> {
        let mut out = Vec::new();
        OptionHeader::put(option, payload, &mut out)?;
        self.link.send(&out, &[], self.deadline)
    }

    /// Sends an option and reads its replies; what comes before the last one is handed to `each`.
    fn option(
        &mut self,
        option: Opt,
        payload: &[u8],
        mut each: impl FnMut(Rep, &[u8]) -> Result<()>,
    ) -> Result<Rep> {
        self.say(option, payload)?;
        for _ in 0..REPLIES_MAX {
            let mut header = [0; OptionReply::LEN];
            self.read(&mut header)?;
            let header = OptionReply::parse(&header)?;
            if header.option != option {
                return Err(Error::corrupt(format!("the NBD server answers {} to {option}", header.option)));
            }
            if header.len > OPTION_PAYLOAD_MAX {
                return Err(Error::corrupt(format!(
                    "a reply to {option} of {} bytes is too long",
                    header.len
                )));
            }
            let mut payload = vec![0; usize::try_from(header.len).unwrap_or_default()];
            self.read(&mut payload)?;
            if header.reply.is_error() {
                self.words = OptionReply::message(&payload);
                return Ok(header.reply);
            }
            if header.reply == Rep::ACK {
                return Ok(Rep::ACK);
            }
            each(header.reply, &payload)?;
        }
        Err(Error::corrupt(format!("the NBD server sends more than {REPLIES_MAX} replies to {option}")))
    }

    /// The error for a refused option.
    fn refused(&self, option: Opt, reply: Rep) -> Error {
        let words = if self.words.is_empty() { String::new() } else { format!(", saying {:?}", self.words) };
        match reply {
            Rep::ERR_UNKNOWN => Error::not_found(format!(
                "the NBD server has no export of this name{words}; list them with nbdinfo --list"
            )),
            Rep::ERR_TLS_REQD => {
                Error::denied(format!("the NBD server wants TLS: use nbds:// with tls-certificates{words}"))
            }
            Rep::ERR_POLICY => Error::denied(format!("the NBD server's policy forbids {option}{words}")),
            Rep::ERR_SHUTDOWN => Error::unavailable(format!("the NBD server is shutting down{words}")),
            Rep::ERR_UNSUP | Rep::ERR_PLATFORM | Rep::ERR_TOO_BIG => {
                Error::unsupported(format!("the NBD server refuses {option} ({reply}){words}"))
            }
            _ => Error::invalid(format!("the NBD server refuses {option} ({reply}){words}")),
        }
    }

    /// Whether the server agrees to an option without payload.
    fn accepts(&mut self, option: Opt) -> Result<bool> {
        match self.option(option, &[], |_, _| Ok(()))? {
            Rep::ACK => Ok(true),
            refusal @ (Rep::ERR_TLS_REQD | Rep::ERR_SHUTDOWN) => Err(self.refused(option, refusal)),
            _ => Ok(false),
        }
    }

    /// Lists or chooses metadata contexts. None where the server refuses.
    fn contexts(&mut self, option: Opt, name: &str, queries: &[&str]) -> Result<Vec<MetaContext>> {
        let queries = queries.iter().map(|&q| q.to_owned()).collect();
        let mut payload = Vec::new();
        MetaQuery { name: name.to_owned(), queries }.put(&mut payload)?;
        let mut found = Vec::new();
        let end = self.option(option, &payload, |reply, payload| {
            if reply == Rep::META_CONTEXT {
                found.push(MetaContext::parse(payload)?);
            }
            Ok(())
        })?;
        Ok(if end == Rep::ACK { found } else { Vec::new() })
    }

    /// Agrees on headers: the best that both sides know, but no better than `best`.
    fn headers(&mut self, best: Headers) -> Result<Headers> {
        if best == Headers::Extended && self.accepts(Opt::EXTENDED_HEADERS)? {
            return Ok(Headers::Extended);
        }
        let structured = best != Headers::Simple && self.accepts(Opt::STRUCTURED_REPLY)?;
        Ok(if structured { Headers::Structured } else { Headers::Simple })
    }

    /// Enters the transmission phase.
    fn enter(&mut self, name: &str, headers: Headers) -> Result<Export> {
        let export = match self.go(name)? {
            Some(export) => export,
            None if headers == Headers::Extended => {
                return Err(Error::corrupt("the NBD server accepts extended headers but not OPT_GO"));
            }
            None => self.export_name(name)?,
        };
        if !export.size.is_multiple_of(u64::from(export.block.minimum)) {
            return Err(Error::unsupported(format!(
                "the export's size of {} bytes is not a multiple of its own minimum block size, {}",
                export.size, export.block.minimum
            )));
        }
        Ok(Export { headers, tls: self.link.is_tls(), ..export })
    }

    /// Ends the handshake.
    fn ready(self, export: Export, allocation: Option<u32>, options: &Options) -> Result<Ready> {
        self.link.socket().set_timeout(options.timeout)?;
        Ok(Ready { link: self.link, inbox: self.inbox, export, allocation })
    }

    /// Enters the transmission phase; nothing where the server does not know how.
    fn go(&mut self, name: &str) -> Result<Option<Export>> {
        let mut payload = Vec::new();
        let infos = vec![Info::NAME, Info::DESCRIPTION, Info::BLOCK_SIZE];
        Go { name: name.to_owned(), infos }.put(&mut payload)?;
        let mut export = Export::named(name);
        let mut described = false;
        let end = self.option(Opt::GO, &payload, |reply, payload| {
            if reply != Rep::INFO {
                return Ok(());
            }
            match ExportInfo::parse(payload)? {
                ExportInfo::Export { size, flags } => {
                    (export.size, export.flags, described) = (size, flags, true);
                }
                ExportInfo::Name(name) => export.name = name,
                ExportInfo::Description(words) => export.description = words,
                ExportInfo::BlockSize(block) => export.block = block.check()?,
                ExportInfo::Other(_) => {}
            }
            Ok(())
        })?;
        match end {
            Rep::ACK if described => Ok(Some(export)),
            Rep::ACK => Err(Error::corrupt("the NBD server tells nothing of the export it agrees to")),
            Rep::ERR_UNSUP => Ok(None),
            refusal => Err(self.refused(Opt::GO, refusal)),
        }
    }

    /// Enters the transmission phase the old way: a server that refuses closes the connection.
    fn export_name(&mut self, name: &str) -> Result<Export> {
        self.say(Opt::EXPORT_NAME, name.as_bytes())?;
        let mut reply = [0; ExportNameReply::LEN];
        self.read(&mut reply)?;
        let reply = ExportNameReply::parse(&reply)?;
        if !self.no_zeroes {
            self.read(&mut [0; EXPORT_NAME_ZEROES])?;
        }
        Ok(Export { size: reply.size, flags: reply.flags, ..Export::named(name) })
    }
}

impl Export {
    fn named(name: &str) -> Self {
        Export {
            name: name.to_owned(),
            description: String::new(),
            size: 0,
            flags: TransmissionFlags::NONE,
            block: BlockSize::default(),
            headers: Headers::Simple,
            contexts: Vec::new(),
            tls: false,
        }
    }
}
