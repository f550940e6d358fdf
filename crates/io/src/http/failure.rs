//! Why a try failed, in words, and whether another may succeed.

use super::answer::retry_after;
use super::options::{Options, REDIRECTS_MAX};
use chart::{Error, Kind};
use std::time::Duration;
use ureq::http::Response;
use ureq::{Body, Timeout};

/// A try that did not bring what was asked for.
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether another may succeed, and how long the server asks to wait before it.
    pub(super) again: Option<Duration>,
    /// The other side said nothing for as long as one waits for that.
    pub(super) silent: bool,
    /// How many bytes came before it failed.
    pub(super) brought: u64,
}

pub(super) type Attempt<T> = std::result::Result<T, Failure>;

impl Failure {
    /// No other try can succeed.
    pub(super) fn last(error: Error) -> Self {
        Failure { error, again: None, silent: false, brought: 0 }
    }

    /// Another try may succeed.
    pub(super) fn again(error: Error) -> Self {
        Failure { again: Some(Duration::ZERO), ..Self::last(error) }
    }
}

/// For how long one waits for what.
#[derive(Clone, Copy)]
pub(super) struct Times {
    connect: Duration,
    /// For the beginning of an answer, and for it to go on.
    quiet: Duration,
    /// For all of it.
    whole: Duration,
}

impl Times {
    pub(super) fn of(options: &Options) -> Self {
        let Options { connect_timeout, timeout, request_timeout, .. } = *options;
        Times { connect: connect_timeout, quiet: timeout, whole: request_timeout }
    }

    #[cold]
    fn up(&self, which: Timeout) -> Failure {
        let Times { connect, quiet, whole } = *self;
        let silence = |what: String| Failure { silent: true, ..Failure::again(Error::unavailable(what)) };
        match which {
            Timeout::Resolve => silence(format!("the server's name was not resolved within {connect:?}")),
            Timeout::Connect => silence(format!("the server could not be connected to within {connect:?}")),
            Timeout::SendRequest | Timeout::SendBody | Timeout::PerWrite => {
                silence(format!("the server did not take the request within {quiet:?}"))
            }
            Timeout::RecvResponse => {
                silence(format!("the server is connected, but has not answered within {quiet:?}"))
            }
            Timeout::PerRead => silence(format!("the server has sent nothing for {quiet:?}")),
            _ => Failure::again(Error::unavailable(format!(
                "the server is too slow: its answer was not complete after {whole:?}"
            ))),
        }
    }

    /// An answer that began and did not end.
    #[cold]
    pub(super) fn broken(&self, e: &std::io::Error) -> Failure {
        if let Some(ureq::Error::Timeout(which)) = e.get_ref().and_then(|e| e.downcast_ref()) {
            return self.up(*which);
        }
        let what = match e.kind() {
            std::io::ErrorKind::TimedOut => return self.up(Timeout::PerRead),
            std::io::ErrorKind::UnexpectedEof => "the server's answer ends too early".to_owned(),
            kind => format!("the server's answer broke off ({kind})"),
        };
        Failure::again(Error::unavailable(what))
    }

    /// No answer. Never in the client's own words, which may repeat the address.
    #[cold]
    pub(super) fn unreached(&self, e: &ureq::Error) -> Failure {
        use ureq::Error as E;
        match e {
            E::Timeout(which) => self.up(*which),
            E::Io(e) => match e.kind() {
                std::io::ErrorKind::TimedOut => self.up(Timeout::Connect),
                // TLS that fails will fail again.
                std::io::ErrorKind::InvalidData => Failure::last(Error::denied(format!("TLS failed: {e}"))),
                kind => Failure::again(Error::unavailable(format!("the server cannot be reached ({kind})"))),
            },
            E::HostNotFound => Failure::again(Error::unavailable("the server's name cannot be resolved")),
            E::ConnectionFailed => Failure::again(Error::unavailable("the server cannot be reached")),
            E::TooManyRedirects => Failure::last(Error::unsupported(format!(
                "the server redirects more than {REDIRECTS_MAX} times"
            ))),
            E::RequireHttpsOnly(_) => Failure::last(Error::denied("the server redirects from https to http")),
            E::Tls(_) | E::Rustls(_) | E::Pem(_) => Failure::last(Error::denied(format!("TLS failed: {e}"))),
            E::Protocol(_) | E::Http(_) => {
                Failure::again(Error::io("the server does not speak HTTP as it should"))
            }
            _ => Failure::last(Error::io("the server's answer cannot be understood")),
        }
    }
}

/// A status that is no answer.
#[cold]
pub(super) fn refusal(response: &Response<Body>) -> Failure {
    let status = response.status();
    let kind = match status.as_u16() {
        404 | 410 => Kind::NotFound,
        401 | 403 | 407 | 451 => Kind::Denied,
        408 | 425 | 429 | 500..=599 => Kind::Unavailable,
        400..=499 => Kind::Invalid,
        _ => Kind::Unsupported,
    };
    let error = Error::new(kind, format!("the server says {status}"));
    let again = (kind == Kind::Unavailable).then(|| retry_after(response.headers()).unwrap_or_default());
    Failure { again, ..Failure::last(error) }
}
