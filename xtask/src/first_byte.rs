//! How soon a server serves: started, asked for one sector, and killed. What the bench times as one command.
//!
//! The least NBD client there can be (fixed newstyle, `OPT_EXPORT_NAME`), so that nothing is timed but the server.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// A server that has not answered by then never will.
const PATIENCE: Duration = Duration::from_secs(120);

const MAGIC: &[u8; 16] = b"NBDMAGICIHAVEOPT";
const FLAG_FIXED_NEWSTYLE: u32 = 1;
const FLAG_NO_ZEROES: u32 = 2;
const OPT_EXPORT_NAME: u32 = 1;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
const CMD_READ: u16 = 0;
const SECTOR: usize = 2048;

/// Starts the server, reads a sector, and ends the server.
pub(crate) fn task(args: &[String]) -> Result<()> {
    let (at, command) = args.split_first().context("first-byte needs a position and a command")?;
    let (program, rest) = command.split_first().context("first-byte needs a command")?;
    let (ours, theirs) = UnixStream::pair()?;
    let theirs: OwnedFd = theirs.into();
    let mut child = Command::new(program)
        .args(rest)
        .stdin(Stdio::from(theirs.try_clone()?))
        .stdout(Stdio::from(theirs))
        .spawn()
        .with_context(|| program.clone())?;
    let sector =
        ours.set_read_timeout(Some(PATIENCE)).map_err(Into::into).and_then(|()| read(ours, at.parse()?));
    // How it ends is no matter here.
    let _ = child.kill();
    child.wait()?;
    let sector = sector?;
    println!("{}", String::from_utf8_lossy(&sector[..8]).escape_debug());
    Ok(())
}

fn read(mut socket: UnixStream, at: u64) -> Result<[u8; SECTOR]> {
    let mut greeting = [0; 18];
    socket.read_exact(&mut greeting)?;
    ensure!(greeting.starts_with(MAGIC), "not an NBD server");
    socket.write_all(&(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes())?;
    let chosen = [&MAGIC[8..], &OPT_EXPORT_NAME.to_be_bytes(), &0_u32.to_be_bytes()].concat();
    socket.write_all(&chosen)?;
    let mut size_and_flags = [0; 10];
    socket.read_exact(&mut size_and_flags).context("the export was refused")?;
    socket.write_all(&request(CMD_READ, at, SECTOR as u32))?;
    let mut reply = [0; 16];
    socket.read_exact(&mut reply)?;
    ensure!(
        reply.starts_with(&REPLY.to_be_bytes()) && reply[4..8] == [0; 4],
        "the read failed: {reply:02x?}"
    );
    let mut sector = [0; SECTOR];
    socket.read_exact(&mut sector)?;
    Ok(sector)
}

/// `docs/proto.md` of NBD, "Request message".
fn request(kind: u16, at: u64, len: u32) -> Vec<u8> {
    let head = [&REQUEST.to_be_bytes()[..], &0_u16.to_be_bytes(), &kind.to_be_bytes()].concat();
    [&head[..], &7_u64.to_be_bytes(), &at.to_be_bytes(), &len.to_be_bytes()].concat()
}
