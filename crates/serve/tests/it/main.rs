//! The NBD server, against clients we did not write and clients that mean harm.

mod client;
mod hostile;
mod linear;
mod listen;
mod notices;
mod order;
mod peers;
mod soak;
mod support;
