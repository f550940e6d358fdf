use super::{Guide, Stop};

pub(super) const STOP: Stop = Stop { title: "In another format, while it is served", visit };

fn visit(guide: &mut Guide<'_>) -> anyhow::Result<()> {
    guide.say(
        "Whoever wants a qcow2 gets one: its tables are computed when they are read, its data are those of",
    )?;
    guide.say("the VDI. There is no conversion, and nothing to wait for.")?;
    let stored = guide.stored("disk.qcow2");
    guide.run("convert disk.qcow2 disk.vdi", 3)?;
    let server = guide
        .beside("serve --present qcow2 --listen unix:vdi.sock --pid-file vdi.pid disk.vdi", "vdi.pid")?;
    guide.run("info nbd+unix:///?socket=vdi.sock", 4)?;
    guide.run("compare disk.vdi nbd+unix:///?socket=vdi.sock", 1)?;
    guide.end(server)?;
    guide.instead_of(stored, "Converting the image")
}
