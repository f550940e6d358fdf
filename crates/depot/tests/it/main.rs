//! Versions of disks, against the laws and against models.

mod files;
mod laws;
mod model;
mod races;
mod thousand;
mod world;
