//! Codecs: how encoded runs become bytes, and how bytes become encoded runs.
//!
//! Decoding takes hostile bytes: the output is as long as the caller says, whatever the input claims, and memory
//! is bounded by the codec's window.

use chart::{Codec, Error, Result};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::cell::RefCell;
use zstd::bulk::Compressor;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// The window of the deflate streams in qcow2 images, as a power of two.
const DEFLATE_WINDOW_BITS: u8 = 12;
/// A zstd frame may ask for a window of so much, as a power of two: more than any cluster has.
const ZSTD_WINDOW_BITS: u32 = 23;

/// Raw deflate streams, without a header or a checksum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deflate;

impl Codec for Deflate {
    fn name(&self) -> &'static str {
        "zlib"
    }

    fn decode(&self, stored: &[u8], out: &mut [u8]) -> Result<()> {
        thread_local! {
            // Whatever window a stream was written with fits into the largest.
            static CONTEXT: RefCell<Decompress> = RefCell::new(Decompress::new(false));
        }
        CONTEXT.with_borrow_mut(|context| {
            context.reset(false);
            let status = context.decompress(stored, out, FlushDecompress::Finish);
            let whole = context.total_out() == out.len() as u64;
            match status {
                // A full output is all that was wanted, whether or not the stream goes on.
                Ok(Status::StreamEnd | Status::BufError | Status::Ok) if whole => Ok(()),
                Ok(_) => Err(short("zlib", context.total_out(), out.len())),
                Err(e) => Err(Error::corrupt("not a zlib stream").caused_by(e)),
            }
        })
    }
}

/// zstd frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Zstd;

impl Codec for Zstd {
    fn name(&self) -> &'static str {
        "zstd"
    }

    fn decode(&self, stored: &[u8], out: &mut [u8]) -> Result<()> {
        thread_local! {
            static CONTEXT: RefCell<Option<Decoder<'static>>> = const { RefCell::new(None) };
        }
        CONTEXT.with_borrow_mut(|kept| {
            let context = match kept {
                Some(context) => context,
                None => kept.insert(new_decoder()?),
            };
            // A context that met an error is in no state to be used again.
            decode_zstd(context, stored, out).inspect_err(|_| *kept = None)
        })
    }
}

fn new_decoder() -> Result<Decoder<'static>> {
    let broken = |e: std::io::Error| Error::io("no zstd decoder").caused_by(e);
    let mut context = Decoder::new().map_err(broken)?;
    context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_BITS)).map_err(broken)?;
    Ok(context)
}

fn decode_zstd(context: &mut Decoder<'_>, stored: &[u8], out: &mut [u8]) -> Result<()> {
    let wanted = out.len();
    let bad = |e: std::io::Error| Error::corrupt("not a zstd frame").caused_by(e);
    context.reinit().map_err(bad)?;
    let (mut input, mut output) = (InBuffer::around(stored), OutBuffer::around(out));
    // A cluster may be made of several frames. What is behind the last of them is not looked at.
    while output.pos() < wanted {
        let before = (input.pos(), output.pos());
        let hint = context.run(&mut input, &mut output).map_err(bad)?;
        if hint == 0 && output.pos() < wanted {
            context.reinit().map_err(bad)?;
        }
        if (input.pos(), output.pos()) == before {
            return Err(short("zstd", output.pos() as u64, wanted));
        }
    }
    Ok(())
}

#[cold]
fn short(name: &str, got: u64, wanted: usize) -> Error {
    Error::corrupt(format!("a {name} run ends after {got} of {wanted} bytes"))
}

fn no_level(name: &str, level: i32, known: &str) -> Error {
    Error::invalid(format!("{name} has no level {level}: {known}"))
}

/// Makes encoded runs. Keep one per thread: it holds its tables between runs.
pub enum Encoder {
    /// Raw deflate with a window of 4 KiB, which every reader of qcow2 can take; and room to encode into.
    Deflate(Box<Compress>, Vec<u8>),
    /// zstd.
    Zstd(Box<Compressor<'static>>),
}

impl Encoder {
    /// An encoder for [`Deflate`]; level 0 to 9, or the usual one.
    pub fn deflate(level: Option<i32>) -> Result<Self> {
        let level = match level {
            None => Compression::default(),
            Some(level @ 0..=9) => Compression::new(level.unsigned_abs()),
            Some(level) => return Err(no_level("deflate", level, "0 to 9")),
        };
        let context = Compress::new_with_window_bits(level, false, DEFLATE_WINDOW_BITS);
        Ok(Encoder::Deflate(Box::new(context), Vec::new()))
    }

    /// An encoder for [`Zstd`]; level 1 to 22, or the usual one.
    pub fn zstd(level: Option<i32>) -> Result<Self> {
        if let Some(level) = level.filter(|level| !(1..=22).contains(level)) {
            return Err(no_level("zstd", level, "1 to 22"));
        }
        let context = Compressor::new(level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL));
        Ok(Encoder::Zstd(Box::new(context.map_err(|e| Error::io("no zstd encoder").caused_by(e))?)))
    }

    /// Encodes all of `bytes` into `out`: how many bytes that took, or `None` if `out` is too short. An `out` that
    /// is shorter than `bytes` asks for a run only if it is worth it.
    pub fn encode(&mut self, bytes: &[u8], out: &mut [u8]) -> Result<Option<usize>> {
        match self {
            Encoder::Deflate(context, room) => {
                context.reset();
                // zlib-rs panics where a stored block does not fit: it always gets room for the worst.
                room.resize(bytes.len() + bytes.len() / 1000 + 64, 0);
                let failed = |e: flate2::CompressError| Error::io("deflate").caused_by(e);
                let status = context.compress(bytes, room, FlushCompress::Finish).map_err(failed)?;
                let len = context.total_out() as usize;
                if status != Status::StreamEnd || len > out.len() {
                    return Ok(None);
                }
                out[..len].copy_from_slice(&room[..len]);
                Ok(Some(len))
            }
            // Out of room is the only way in which this fails.
            Encoder::Zstd(context) => Ok(context.compress_to_buffer(bytes, out).ok()),
        }
    }
}

#[cfg(test)]
mod tests;
