//! The handshake: greeting and options, until an export is chosen ("Newstyle negotiation").
//!
//! Nothing is read ahead: of what a client sends, no byte is taken from the socket that does not belong to the
//! message being read. So nothing sent in the clear is left over to be taken for something said under TLS.

use super::conn::{Conn, Received};
use super::limits::{Limits, OPTIONS};
use super::server::Server;
use super::session::{Chosen, Context, Session};
use super::tls;
use crate::Export;
use chart::{Error, Result};
use io::nbd::wire::{
    BlockSize, ClientFlags, ExportInfo, ExportNameReply, Go, Greeting, HandshakeFlags, Headers, Info, Listed,
    MetaContext, MetaQuery, OPTION_PAYLOAD_MAX, Opt, OptionHeader, OptionReply, Rep, TransmissionFlags,
};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// What a handshake came to.
pub(super) enum Outcome {
    /// An export was chosen.
    Ready(Session),
    /// The client has what it wanted, or gave up.
    Over,
}

/// A handshake under way.
pub(super) struct Handshake<'s> {
    server: &'s Arc<Server>,
    conn: Arc<Conn>,
    deadline: Instant,
    fixed: bool,
    no_zeroes: bool,
    encrypted: bool,
    headers: Headers,
    /// The contexts that were chosen, and for which export.
    chosen: Option<(String, Vec<Chosen>)>,
    pump: Option<JoinHandle<()>>,
}

/// Where a handshake leaves a client.
pub(super) struct Shaken {
    pub(super) outcome: Result<Outcome>,
    /// Another connection than it began on, where TLS came between.
    pub(super) conn: Arc<Conn>,
    /// What moves its bytes then.
    pub(super) pump: Option<JoinHandle<()>>,
}

/// What an option led to.
enum Step {
    Next,
    Chosen(Arc<Export>),
    Over,
}

impl<'s> Handshake<'s> {
    /// With a client that was just accepted.
    pub(super) fn new(server: &'s Arc<Server>, conn: Arc<Conn>, limits: &Limits) -> Self {
        let now = Instant::now();
        Handshake {
            server,
            conn,
            deadline: now.checked_add(limits.handshake).unwrap_or(now),
            fixed: false,
            no_zeroes: false,
            encrypted: false,
            headers: Headers::Simple,
            chosen: None,
            pump: None,
        }
    }

    /// Carries it out.
    pub(super) fn run(mut self) -> Shaken {
        let outcome = self.negotiate();
        Shaken { outcome, conn: self.conn, pump: self.pump }
    }

    fn negotiate(&mut self) -> Result<Outcome> {
        let mut out = Vec::new();
        Greeting { flags: HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES }.put(&mut out);
        self.say(&out)?;
        let mut flags = [0; ClientFlags::LEN];
        self.hear(&mut flags)?;
        let flags = ClientFlags::parse(flags)?;
        self.fixed = flags.has(ClientFlags::FIXED_NEWSTYLE);
        self.no_zeroes = flags.has(ClientFlags::NO_ZEROES);
        for _ in 0..OPTIONS {
            match self.option()? {
                Step::Next => {}
                Step::Chosen(export) => return Ok(Outcome::Ready(self.session(export))),
                Step::Over => return Ok(Outcome::Over),
            }
        }
        Err(Error::invalid(format!("a client sent more than {OPTIONS} options")))
    }

    fn session(&mut self, export: Arc<Export>) -> Session {
        let of_export = self.chosen.take().filter(|(name, _)| self.server.is_export(name, &export));
        let contexts = of_export.map(|(_, chosen)| chosen).unwrap_or_default();
        Session { export, headers: self.headers, contexts, notices: self.server.notices() }
    }

    /// Receives exactly this much, before the deadline.
    fn hear(&self, into: &mut [u8]) -> Result<()> {
        let mut have = 0usize;
        while let Some(rest) = into.get_mut(have..).filter(|rest| !rest.is_empty()) {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.conn.is_stopping() {
                return Err(Error::unavailable("a client did not complete its handshake in time"));
            }
            self.conn.set_patience(Some(left))?;
            match self.conn.receive(rest, true)? {
                Received::Bytes(len) => have = have.saturating_add(len),
                Received::End => return Err(Error::unavailable("a client left during its handshake")),
                Received::Nothing => {}
            }
        }
        Ok(())
    }

    /// Sends all of this, before the deadline.
    fn say(&self, bytes: &[u8]) -> Result<()> {
        self.conn.say(bytes, self.deadline)
    }

    fn reply(&self, option: Opt, reply: Rep, payload: &[u8]) -> Result<Step> {
        let mut out = Vec::new();
        OptionReply::put(option, reply, payload, &mut out)?;
        self.say(&out)?;
        Ok(Step::Next)
    }

    fn refuse(&self, option: Opt, reply: Rep, words: &str) -> Result<Step> {
        self.reply(option, reply, words.as_bytes())
    }

    /// Hears one option and answers it.
    fn option(&mut self) -> Result<Step> {
        let mut head = [0; OptionHeader::LEN];
        self.hear(&mut head)?;
        let OptionHeader { option, len } = OptionHeader::parse(&head)?;
        if len > OPTION_PAYLOAD_MAX {
            let _ = self.refuse(option, Rep::ERR_TOO_BIG, "the option is too long");
            return Err(Error::invalid(format!("{option} of {len} bytes")));
        }
        let mut payload: Vec<u8> = std::iter::repeat_n(0, usize::try_from(len).unwrap_or(0)).collect();
        self.hear(&mut payload)?;
        if !self.fixed && option != Opt::EXPORT_NAME {
            return Err(Error::invalid("an option from a client that does not speak fixed newstyle"));
        }
        if self.server.tls().is_some() && !self.encrypted && !matches!(option, Opt::STARTTLS | Opt::ABORT) {
            return self.only_encrypted(option);
        }
        self.answer(option, &payload)
    }

    fn only_encrypted(&self, option: Opt) -> Result<Step> {
        if option == Opt::EXPORT_NAME {
            // This option has no way of saying no.
            return Err(Error::invalid("a client asked for an export before TLS"));
        }
        self.refuse(option, Rep::ERR_TLS_REQD, "this server speaks only TLS: begin with STARTTLS")
    }

    fn answer(&mut self, option: Opt, payload: &[u8]) -> Result<Step> {
        match option {
            Opt::EXPORT_NAME => self.export_name(payload),
            Opt::INFO | Opt::GO => self.go(option, payload),
            Opt::LIST_META_CONTEXT | Opt::SET_META_CONTEXT => self.contexts(option, payload),
            Opt::LIST | Opt::ABORT | Opt::STARTTLS | Opt::STRUCTURED_REPLY | Opt::EXTENDED_HEADERS
                if !payload.is_empty() =>
            {
                self.refuse(option, Rep::ERR_INVALID, "this option carries no data")
            }
            Opt::LIST => self.list(),
            Opt::ABORT => {
                // The client may have left already, and need not hear this.
                let _ = self.reply(option, Rep::ACK, &[]);
                Ok(Step::Over)
            }
            Opt::STARTTLS => self.start_tls(),
            Opt::STRUCTURED_REPLY => self.headers(option, Headers::Structured),
            Opt::EXTENDED_HEADERS => self.headers(option, Headers::Extended),
            _ => self.refuse(option, Rep::ERR_UNSUP, "this server does not know the option"),
        }
    }

    fn headers(&mut self, option: Opt, headers: Headers) -> Result<Step> {
        match (self.headers, headers) {
            // There is no way back from extended headers: that is what this error says.
            (Headers::Extended, Headers::Structured) => {
                self.refuse(option, Rep::ERR_EXT_HEADER_REQD, "extended headers are agreed on already")
            }
            (agreed, asked) if agreed == asked => {
                self.refuse(option, Rep::ERR_INVALID, "that is agreed on already")
            }
            _ => {
                self.headers = headers;
                self.reply(option, Rep::ACK, &[])
            }
        }
    }

    fn list(&self) -> Result<Step> {
        for export in self.server.exports() {
            let mut payload = Vec::new();
            Listed { name: export.name.clone(), description: export.description.clone() }
                .put(&mut payload)?;
            self.reply(Opt::LIST, Rep::SERVER, &payload)?;
        }
        self.reply(Opt::LIST, Rep::ACK, &[])
    }

    fn start_tls(&mut self) -> Result<Step> {
        let Some(tls) = self.server.tls() else {
            return self.refuse(Opt::STARTTLS, Rep::ERR_POLICY, "this server has no certificate");
        };
        if self.encrypted {
            return self.refuse(Opt::STARTTLS, Rep::ERR_INVALID, "TLS has begun already");
        }
        self.reply(Opt::STARTTLS, Rep::ACK, &[])?;
        let tunnel = tls::begin(tls, &self.conn, self.deadline, self.server.limits().drain)?;
        self.conn = self.server.replace(&self.conn, tunnel.inner)?;
        self.pump = Some(tunnel.pump);
        self.encrypted = true;
        // What was agreed on in the clear is worth nothing.
        self.headers = Headers::Simple;
        self.chosen = None;
        Ok(Step::Next)
    }

    fn flags(&self, export: &Export) -> TransmissionFlags {
        let writing = TransmissionFlags::SEND_FUA
            | TransmissionFlags::SEND_TRIM
            | TransmissionFlags::SEND_WRITE_ZEROES
            | TransmissionFlags::SEND_FAST_ZERO;
        TransmissionFlags::HAS_FLAGS
            | TransmissionFlags::SEND_FLUSH
            | TransmissionFlags::SEND_CACHE
            | TransmissionFlags::CAN_MULTI_CONN
            | writing.only_if(export.writable)
            | TransmissionFlags::READ_ONLY.only_if(!export.writable)
            | TransmissionFlags::SEND_DF.only_if(self.headers != Headers::Simple)
            | TransmissionFlags::BLOCK_STATUS_PAYLOAD.only_if(self.headers == Headers::Extended)
    }

    fn export_name(&mut self, payload: &[u8]) -> Result<Step> {
        if self.headers == Headers::Extended {
            // Nor can it say this. QEMU ends such a connection too.
            return Err(Error::invalid("a client asked for an export the old way, with extended headers"));
        }
        let name = std::str::from_utf8(payload).ok();
        let Some(export) = name.and_then(|name| self.server.export(name)) else {
            return Err(Error::not_found("a client asked for an export that is not there"));
        };
        let mut out = Vec::new();
        let reply = ExportNameReply { size: export.disk.len(), flags: self.flags(&export) };
        reply.put(self.no_zeroes, &mut out);
        self.say(&out)?;
        Ok(Step::Chosen(export))
    }

    fn go(&mut self, option: Opt, payload: &[u8]) -> Result<Step> {
        let go = match Go::parse(payload) {
            Ok(go) => go,
            Err(e) => return self.refuse(option, Rep::ERR_INVALID, &e.to_string()),
        };
        let Some(export) = self.server.export(&go.name) else {
            return self.refuse(option, Rep::ERR_UNKNOWN, "there is no export of that name");
        };
        let mut infos = vec![ExportInfo::Export { size: export.disk.len(), flags: self.flags(&export) }];
        infos.push(ExportInfo::BlockSize(self.block_size(&export)));
        if go.infos.contains(&Info::NAME) {
            infos.push(ExportInfo::Name(export.name.clone()));
        }
        if go.infos.contains(&Info::DESCRIPTION) && !export.description.is_empty() {
            infos.push(ExportInfo::Description(export.description.clone()));
        }
        for info in infos {
            let mut payload = Vec::new();
            info.put(&mut payload)?;
            self.reply(option, Rep::INFO, &payload)?;
        }
        self.reply(option, Rep::ACK, &[])?;
        Ok(if option == Opt::GO { Step::Chosen(export) } else { Step::Next })
    }

    fn block_size(&self, export: &Export) -> BlockSize {
        let maximum = self.server.limits().request;
        let wanted = export.disk.geometry().preferred.clamp(4096, 1 << 20).min(maximum.max(512));
        // The largest power of two that is not more: other sizes are none for the protocol.
        let preferred = wanted.checked_ilog2().and_then(|bits| 1u32.checked_shl(bits)).unwrap_or(4096);
        BlockSize { minimum: 1, preferred, maximum }
    }

    fn contexts(&mut self, option: Opt, payload: &[u8]) -> Result<Step> {
        let listing = option == Opt::LIST_META_CONTEXT;
        if !listing {
            // What is chosen replaces what was chosen before, also where nothing can be.
            self.chosen = None;
        }
        if self.headers == Headers::Simple {
            return self.refuse(option, Rep::ERR_INVALID, "metadata needs structured replies");
        }
        let query = match MetaQuery::parse(payload) {
            Ok(query) => query,
            Err(e) => return self.refuse(option, Rep::ERR_INVALID, &e.to_string()),
        };
        let Some(export) = self.server.export(&query.name) else {
            return self.refuse(option, Rep::ERR_UNKNOWN, "there is no export of that name");
        };
        let mut chosen = Vec::new();
        for (id, (name, context)) in (1u32..).zip(Context::all(&export)) {
            if !is_asked(&query.queries, &name, listing) {
                continue;
            }
            let mut payload = Vec::new();
            MetaContext { id: if listing { 0 } else { id }, name }.put(&mut payload)?;
            self.reply(option, Rep::META_CONTEXT, &payload)?;
            chosen.push(Chosen { id, context });
        }
        if !listing {
            self.chosen = Some((query.name, chosen));
        }
        self.reply(option, Rep::ACK, &[])
    }
}

/// Whether a context is among those asked for: by its name, or, in a list, by a namespace or for all of them.
fn is_asked(queries: &[String], name: &str, listing: bool) -> bool {
    let below = |query: &str| listing && query.ends_with(':') && name.starts_with(query);
    (listing && queries.is_empty()) || queries.iter().any(|query| query == name || below(query))
}
