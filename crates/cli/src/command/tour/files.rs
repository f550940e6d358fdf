use super::{Guide, Stop};

pub(super) const STOP: Stop = Stop { title: "Files out of a disk", visit };

/// A qcow2 with a GPT and an ext4 in it: `demo/make.sh` has made it.
const DEMO: &[u8] = include_bytes!("demo/demo.qcow2");

fn visit(guide: &mut Guide<'_>) -> anyhow::Result<()> {
    guide.say(
        "A file is a chart over a partition, over an image, over a file of the host: nothing is mounted,",
    )?;
    guide.say("nobody has to be root, and what can be shared with the image is not copied.")?;
    guide.place("lighthouse.qcow2", DEMO)?;
    guide.run("ls lighthouse.qcow2", 6)?;
    guide.run("ls lighthouse.qcow2#1:/home/ada", 6)?;
    guide.run("cat lighthouse.qcow2#1:/home/ada/soundings.md", 4)?;
    guide.run("extract lighthouse.qcow2#1:/ -o lighthouse", 3)?;
    Ok(())
}
