use super::{Guide, Stop};

pub(super) const STOP: Stop = Stop { title: "A directory is a disk", visit };

fn visit(guide: &mut Guide<'_>) -> anyhow::Result<()> {
    guide.say(
        "The other way round: names become an ISO 9660 file system that is computed when it is read; the",
    )?;
    guide.say("files stay where they are. One that changes underneath is an error, never a mixture.")?;
    guide.run("info lighthouse", 4)?;
    guide.run("chart lighthouse", 8)?;
    guide.run("chart -o lighthouse.chart lighthouse", 2)?;
    guide.run("compare lighthouse.chart lighthouse", 1)?;
    Ok(())
}
