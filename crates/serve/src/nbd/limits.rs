//! The limits of a server. Everything a client can make grow has one.

use io::nbd::wire::PAYLOAD_MAX;
use std::time::Duration;

/// How much of a trim or of a write of zeroes is carried out as one: what others have to wait for.
pub const PIECE: u64 = 16 << 20;

/// The most extents that one block status reply holds for one context.
pub const STATUS_EXTENTS: usize = 16 << 10;

/// The most places that are looked up for it, however few extents they make.
pub const STATUS_LEAVES: usize = 64 << 10;

/// How many options a client may send in one handshake.
pub const OPTIONS: usize = 256;

/// How many replies' bytes are gathered before they are sent, while there are more requests to answer.
pub const BATCH: usize = 64 << 10;

/// The longest write that a connection's own thread carries out.
pub const IN_PLACE: usize = 256 << 10;

/// How long such a write may take. One that takes longer was made to wait for the disk, by a system that has more
/// unwritten data than it likes, and waiting is for proxies.
pub const IN_PLACE_PATIENCE: Duration = Duration::from_millis(2);

/// For how long proxies carry out all writes after that.
pub const IN_PLACE_PAUSE: Duration = Duration::from_millis(200);

/// How long a request is that a proxy may help with while the connection's own thread goes on to the next: so long that
/// copying it takes longer than waking somebody.
pub const LONG: u64 = 128 << 10;

/// With how many requests of one connection at a time. Whoever sends many has two processors at work, and leaves the
/// proxies to others.
pub const HELPED: usize = 2;

/// What every request counts for in the array, however little it carries.
pub const REQUEST_BYTES: u64 = 4 << 10;

/// What a server's owner may set.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest read or write.
    pub request: u32,
    /// How many requests of one connection may be in the array or with a proxy.
    pub in_flight: usize,
    /// How many bytes those may hold: payloads on their way in, replies on their way out.
    pub in_flight_bytes: u64,
    /// How many bytes all connections may hold together; where that is reached, each may still have one request under
    /// way.
    pub total_bytes: u64,
    /// How many connections there may be.
    pub connections: usize,
    /// How long a handshake may take, TLS included.
    pub handshake: Duration,
    /// How long a connection may be silent with nothing under way, or read nothing of what it asked for; forever
    /// where none is given.
    pub idle: Option<Duration>,
    /// How long clients are given to take their replies when the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request: PAYLOAD_MAX,
            in_flight: 256,
            in_flight_bytes: 64 << 20,
            total_bytes: 512 << 20,
            connections: 256,
            handshake: Duration::from_secs(10),
            idle: None,
            drain: Duration::from_secs(10),
        }
    }
}
