//! The JSON form: the same chart, to be read and edited by people.

mod sources;

use super::Written;
use super::binary::{MAX_EXTENTS, MAX_SOURCES, sound};
use super::sources::{Sum, known};
use crate::{Chart, CodecId, Error, Extent, Frame, Place, Result, SourceId, Table, Wait};
use serde::{Deserialize, Serialize};
use sources::SourceForm;

/// In version 1 all sources were outside.
const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    portolan_chart: u32,
    len: u64,
    #[serde(default = "default_block")]
    logical_block: u32,
    sources: Vec<SourceForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    codecs: Vec<String>,
    extents: Vec<ExtentForm>,
}

fn default_block() -> u32 {
    512
}

#[derive(Serialize, Deserialize)]
struct ExtentForm {
    at: u64,
    len: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    writable: bool,
    #[serde(flatten)]
    place: PlaceForm,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(tag = "place", rename_all = "lowercase")]
enum PlaceForm {
    Hole,
    Zero,
    Raw { source: u16, offset: u64 },
    Frame { source: u16, codec: u8, offset: u64, stored_len: u32, decoded_len: u32, skip: u32 },
}

pub(super) fn encode(written: &Written) -> Result<String> {
    let mut extents = Vec::with_capacity(written.table.runs());
    let mut at = 0;
    while at < Chart::len(&written.table) {
        let Extent { len, place, writable, .. } = written.table.extent_at(at, u64::MAX, Wait::Allowed)?;
        extents.push(ExtentForm { at, len, writable, place: place_form(place) });
        at += len;
    }
    let mut sum = Sum::default();
    let sources = written.sources.iter().map(|s| SourceForm::of(s, &mut sum)).collect::<Result<_>>()?;
    let document = Document {
        portolan_chart: VERSION,
        len: Chart::len(&written.table),
        logical_block: written.logical_block,
        sources,
        codecs: written.codecs.clone(),
        extents,
    };
    serde_json::to_string_pretty(&document).map_err(|e| Error::io("writing JSON").caused_by(e))
}

pub(super) fn decode(text: &str) -> Result<Written> {
    let bad = |e: serde_json::Error| Error::corrupt("not a chart in JSON").caused_by(e);
    let document: Document = serde_json::from_str(text).map_err(bad)?;
    if !(1..=VERSION).contains(&document.portolan_chart) {
        return Err(Error::unsupported(format!("a chart of version {}", document.portolan_chart)));
    }
    if document.extents.len() as u64 > MAX_EXTENTS || document.sources.len() as u64 > MAX_SOURCES {
        return Err(Error::unsupported("a chart with too many extents or sources"));
    }
    let mut sum = Sum::default();
    let sources: Vec<_> =
        document.sources.into_iter().map(|form| form.record(&mut sum)).collect::<Result<_>>()?;
    let mut table = Table::builder();
    for form in document.extents {
        let extent = Extent { at: form.at, len: form.len, place: place(form.place), writable: form.writable };
        sound(&extent).and_then(|()| known(&extent, &sources, document.codecs.len()))?;
        table.push(extent)?;
    }
    Ok(Written {
        logical_block: document.logical_block,
        sources,
        codecs: document.codecs,
        table: table.finish(document.len)?,
    })
}

fn place_form(place: Place) -> PlaceForm {
    match place {
        Place::Hole => PlaceForm::Hole,
        Place::Zero => PlaceForm::Zero,
        Place::Raw { source, offset } => PlaceForm::Raw { source: source.0, offset },
        Place::Frame { offset, stored_len, decoded_len, skip, source, codec } => {
            PlaceForm::Frame { source: source.0, codec: codec.0, offset, stored_len, decoded_len, skip }
        }
    }
}

fn place(form: PlaceForm) -> Place {
    match form {
        PlaceForm::Hole => Place::Hole,
        PlaceForm::Zero => Place::Zero,
        PlaceForm::Raw { source, offset } => Place::Raw { source: SourceId(source), offset },
        PlaceForm::Frame { source, codec, offset, stored_len, decoded_len, skip } => {
            let (source, codec) = (SourceId(source), CodecId(codec));
            Frame { offset, stored_len, decoded_len, skip, source, codec }.into()
        }
    }
}
