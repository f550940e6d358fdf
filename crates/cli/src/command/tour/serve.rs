use super::{Guide, Stop};

pub(super) const STOP: Stop = Stop { title: "The disk on the wire", visit };

const URI: &str = "nbd+unix:///?socket=disk.sock";

fn visit(guide: &mut Guide<'_>) -> anyhow::Result<()> {
    guide.say(
        "Served over NBD, a disk is there for QEMU, the kernel and Portolan itself. What this client writes",
    )?;
    guide.say(
        "goes into an overlay that is gone afterwards: a clone for every client, and nothing was copied.",
    )?;
    let stored = guide.stored("disk.qcow2");
    let server = guide
        .beside("serve --temporary --listen unix:disk.sock --pid-file serve.pid disk.qcow2", "serve.pid")?;
    guide.run(&format!("compare disk.qcow2 {URI}"), 1)?;
    guide.run(&format!("bench --size 4k --depth 32 --seconds 1 --within 96M {URI}"), 3)?;
    guide.run(&format!("bench -f raw --write --size 64k --operations 64 --within 64M {URI}"), 1)?;
    guide.end(server)?;
    guide.instead_of(stored, "Copying the image for this client")?;
    Ok(())
}
