//! Volume descriptors: what the disk is called, and where everything begins.

use super::date;
use super::layout::{
    Both16, Both32, JOLIET_ESCAPE, PRIMARY, SECTOR, SELF, STANDARD_IDENTIFIER, SUPPLEMENTARY, TERMINATOR,
    VolumeDescriptor,
};
use super::names::{self, Naming};
use super::number::to_u32;
use super::record::{self, Described};
use io::tree::Time;
use zerocopy::{FromZeros, IntoBytes};

/// Who made it: the application identifier.
const APPLICATION: &[u8] = b"PORTOLAN";

/// What a volume descriptor says.
pub(super) struct Volume<'a> {
    pub(super) name: &'a [u8],
    pub(super) date: Time,
    /// How many sectors the disk has.
    pub(super) sectors: u64,
    pub(super) path_table_len: u64,
    /// The sectors of the path tables, types L and M.
    pub(super) path_tables: [u64; 2],
    pub(super) root: Described,
}

impl Volume<'_> {
    /// The primary descriptor, or Joliet's.
    pub(super) fn descriptor(&self, naming: Naming) -> VolumeDescriptor {
        let mut all = empty(if naming == Naming::Plain { PRIMARY } else { SUPPLEMENTARY });
        match naming {
            Naming::Plain => all.volume_identifier = names::volume(self.name),
            Naming::Joliet => {
                all.volume_identifier = names::joliet_volume(self.name);
                start(&mut all.escape_sequences, &JOLIET_ESCAPE);
            }
        }
        all.volume_space_size = Both32::from(to_u32(self.sectors));
        (all.volume_set_size, all.volume_sequence_number) = (Both16::from(1), Both16::from(1));
        all.logical_block_size = Both16::from(u16::try_from(SECTOR).unwrap_or(u16::MAX));
        all.path_table_size = Both32::from(to_u32(self.path_table_len));
        let [l, m] = self.path_tables.map(to_u32);
        (all.location_of_type_l_path_table, all.location_of_type_m_path_table) = (l.into(), m.into());
        let mut root = Vec::new();
        record::push(&mut root, &self.root, SELF, &[]);
        start(&mut all.directory_record_for_root_directory, &root);
        self.fill_texts(naming, &mut all);
        let date = date::long(self.date);
        (all.volume_creation_date_and_time, all.volume_modification_date_and_time) = (date, date);
        (all.volume_expiration_date_and_time, all.volume_effective_date_and_time) =
            (date::NEVER, date::NEVER);
        all.file_structure_version = 1;
        all
    }

    /// Texts are padded with spaces, in the width of their characters.
    fn fill_texts(&self, naming: Naming, all: &mut VolumeDescriptor) {
        let wide: Vec<u8> = APPLICATION.iter().flat_map(|&byte| [0, byte]).collect();
        let application = if naming == Naming::Plain { APPLICATION } else { &wide };
        let blank = |text: &mut [u8]| {
            let pad: &[u8] = if naming == Naming::Plain { b" " } else { &[0, b' '] };
            text.iter_mut().zip(pad.iter().cycle()).for_each(|(to, &from)| *to = from);
        };
        blank(&mut all.system_identifier);
        blank(&mut all.volume_set_identifier);
        blank(&mut all.publisher_identifier);
        blank(&mut all.data_preparer_identifier);
        blank(&mut all.application_identifier);
        start(&mut all.application_identifier, application);
        // Odd in length: in Joliet the last byte stays 0.
        for text in [
            &mut all.copyright_file_identifier,
            &mut all.abstract_file_identifier,
            &mut all.bibliographic_file_identifier,
        ] {
            blank(text);
            if let ([.., last], Naming::Joliet) = (text.as_mut_slice(), naming) {
                *last = 0;
            }
        }
    }
}

/// The descriptor that ends their list (8.3).
pub(super) fn terminator() -> VolumeDescriptor {
    empty(TERMINATOR)
}

fn empty(of_type: u8) -> VolumeDescriptor {
    let mut all = VolumeDescriptor::new_zeroed();
    all.volume_descriptor_type = of_type;
    all.standard_identifier = STANDARD_IDENTIFIER;
    all.volume_descriptor_version = 1;
    all
}

fn start(to: &mut [u8], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
}

/// A descriptor as a sector.
pub(super) fn fill(descriptor: &VolumeDescriptor, out: &mut [u8]) {
    start(out, descriptor.as_bytes());
}
