//! The least client there is, so that a test knows to the byte what it has sent and what was answered.

use io::nbd::wire::{
    ClientFlags, Code, Command, CommandFlags, ExportNameReply, Greeting, Headers, Opt, OptionHeader, Reply,
    Request, SimpleReply,
};
use std::io::{Error, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection to an export, with simple replies.
pub(super) struct Client<S = UnixStream> {
    pub(super) socket: S,
    pub(super) size: u64,
    cookie: u64,
}

fn broken(e: chart::Error) -> Error {
    Error::other(e)
}

impl Client {
    pub(super) fn connect(path: &Path) -> Result<Client> {
        Client::connect_to(path, "")
    }

    /// The same, to an export by its name.
    pub(super) fn connect_to(path: &Path, export: &str) -> Result<Client> {
        let socket = UnixStream::connect(path)?;
        // Longer than anything may take here: a server that does not answer is a failure.
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        Client::choosing(socket, export)
    }
}

impl<S: Read + Write> Client<S> {
    /// Over a socket that is connected.
    pub(super) fn over(socket: S) -> Result<Self> {
        Client::choosing(socket, "")
    }

    fn choosing(mut socket: S, export: &str) -> Result<Self> {
        let mut greeting = [0; Greeting::LEN];
        socket.read_exact(&mut greeting)?;
        Greeting::parse(&greeting).map_err(broken)?;
        let mut out = Vec::new();
        (ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES).put(&mut out);
        OptionHeader::put(Opt::EXPORT_NAME, export.as_bytes(), &mut out).map_err(broken)?;
        socket.write_all(&out)?;
        let mut reply = [0; ExportNameReply::LEN];
        socket.read_exact(&mut reply)?;
        let size = ExportNameReply::parse(&reply).map_err(broken)?.size;
        Ok(Client { socket, size, cookie: 0 })
    }

    /// Sends a request, and does not wait for its answer.
    pub(super) fn send(
        &mut self,
        command: Command,
        flags: CommandFlags,
        (offset, len): (u64, u64),
        payload: &[u8],
    ) -> Result<u64> {
        self.cookie += 1;
        let request = Request { flags, command, cookie: self.cookie, offset, len };
        let mut out = Vec::new();
        request.put(Headers::Simple, &mut out).map_err(broken)?;
        out.extend_from_slice(payload);
        self.socket.write_all(&out)?;
        Ok(self.cookie)
    }

    /// Waits for the next answer: to which request, which must have succeeded.
    pub(super) fn answer(&mut self) -> Result<u64> {
        let SimpleReply { code, cookie } = self.outcome()?;
        assert_eq!(code, Code::OK);
        Ok(cookie)
    }

    /// Waits for the next answer, whatever it is.
    pub(super) fn outcome(&mut self) -> Result<SimpleReply> {
        let mut reply = [0; SimpleReply::LEN];
        self.socket.read_exact(&mut reply)?;
        match Reply::parse(Headers::Simple, &reply).map_err(broken)? {
            Reply::Simple(reply) => Ok(reply),
            other => panic!("{other:?}"),
        }
    }
}
