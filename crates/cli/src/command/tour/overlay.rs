use super::{Guide, Stop};

pub(super) const STOP: Stop = Stop { title: "A clone", visit };

fn visit(guide: &mut Guide<'_>) -> anyhow::Result<()> {
    guide.say("An overlay is a chart of its own over somebody else's: a clone, made at once.")?;
    let stored = guide.stored("disk.qcow2");
    guide.run("create -b disk.qcow2 -F qcow2 clone.qcow2", 2)?;
    guide.instead_of(stored, "Copying the image")?;
    guide.run("bench --write --size 1M --operations 8 --within 96M --seed 3 clone.qcow2", 1)?;
    guide.run("chart clone.qcow2", 6)?;
    guide.say("As a picture, for a browser:")?;
    guide.run("chart --svg clone.svg clone.qcow2", 1)?;
    Ok(())
}
