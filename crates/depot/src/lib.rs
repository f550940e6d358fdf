//! Versions of disks.
#![forbid(unsafe_code)]
