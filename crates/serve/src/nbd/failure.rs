//! What a failure is called on the wire. The one place where a [`Kind`] becomes an NBD code.

use super::notices::Severity;
use chart::{Error, Kind};
use io::nbd::wire::Code;

/// Why a request was not answered with success.
pub(super) enum Stop {
    /// It would have to wait: it belongs into the array.
    WouldBlock,
    /// It failed.
    Failed(Failure),
}

/// How a request failed.
pub(super) struct Failure {
    /// On the wire.
    pub(super) code: Code,
    /// For a person at the client.
    pub(super) message: String,
    /// For the server's owner: what the client is not told, since it names files of this host.
    pub(super) log: Option<Log>,
}

/// What the server's owner is told of a failure.
pub(super) struct Log {
    pub(super) severity: Severity,
    /// What it was that could not be found, rather than that something went wrong with it.
    pub(super) is_absent: bool,
    pub(super) words: String,
}

impl Stop {
    /// A request that makes no sense or is not allowed.
    #[cold]
    pub(super) fn refused(code: Code, message: impl Into<String>) -> Self {
        Stop::Failed(Failure { code, message: message.into(), log: None })
    }
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        if e.is_would_block() { Stop::WouldBlock } else { Stop::Failed(Failure::from(&e)) }
    }
}

impl Failure {
    /// A fault of ours.
    #[cold]
    pub(super) fn unforeseen(what: &str) -> Self {
        let message = "the server failed in an unforeseen way".to_owned();
        let log = Log { severity: Severity::Failure, is_absent: false, words: what.to_owned() };
        Failure { code: Code::EIO, message, log: Some(log) }
    }
}

impl From<&Error> for Failure {
    fn from(e: &Error) -> Self {
        let message = format!("{}; the server knows more", e.kind().name());
        let log =
            Log { severity: severity(e.kind()), is_absent: e.kind() == Kind::NotFound, words: e.to_string() };
        Failure { code: code(e.kind()), message, log: Some(log) }
    }
}

/// What a disk does not do, or does not take, is not wrong with it: clients try what they can have.
fn severity(kind: Kind) -> Severity {
    match kind {
        Kind::Unsupported | Kind::Invalid => Severity::Information,
        _ => Severity::Failure,
    }
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::EINVAL,
        Kind::Denied | Kind::ReadOnly | Kind::Fenced => Code::EPERM,
        Kind::NoSpace => Code::ENOSPC,
        Kind::Unsupported => Code::ENOTSUP,
        // The request's own range was checked before: what is out of range now is the chart's fault.
        Kind::OutOfRange
        | Kind::NotFound
        | Kind::Corrupt
        | Kind::Conflict
        | Kind::Unavailable
        | Kind::WouldBlock
        | Kind::Io => Code::EIO,
    }
}
