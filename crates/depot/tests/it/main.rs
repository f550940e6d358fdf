//! Versions of disks, against the laws and against models.

mod laws;
mod model;
mod thousand;
mod world;
