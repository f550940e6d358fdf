//! The command, run as a person would, with the real tools as judges.

mod bench;
mod bitmap;
mod chain;
mod chart;
mod check;
mod compare;
mod convert;
mod create;
mod device;
mod directory;
mod files;
mod flags;
mod help;
mod info;
mod inside;
mod progress;
mod run;
mod safety;
mod serve;
mod snapshot;
mod sources;
mod tour;
mod vdi;
