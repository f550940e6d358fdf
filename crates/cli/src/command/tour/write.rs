use super::{Guide, Stop};

pub(super) const STOP: Stop = Stop { title: "A guest writes", visit };

fn visit(guide: &mut Guide<'_>) -> anyhow::Result<()> {
    guide.say(
        "Here no virtual machine writes to it, but a load generator: 96 MiB in a row, then here and there.",
    )?;
    guide.run("bench --write --pattern sequential --size 1M --operations 96 disk.qcow2", 2)?;
    guide.run("bench --write --size 256k --operations 24 --within 8G disk.qcow2", 2)?;
    Ok(())
}
