//! The NBD server, against clients we did not write and clients that mean harm.

mod peers;
mod support;
