//! Output that outlives its sandbox.

use errand_task::{Gap, Retained, RetainedOutput, Run, Stream};
use serde::{Deserialize, Serialize};

use super::Undecodable;
use crate::StoreError;

/// What is counted for a retained output beside its texts and bytes.
const OVERHEAD: usize = 256;
/// The most bytes that a stored block may unpack to. More than any setting allows to retain.
const LIMIT: usize = 64 << 20;

/// The summary as it is stored.
#[derive(Serialize, Deserialize)]
struct Summary {
    bytes: u64,
    gaps: Vec<(u64, u64)>,
}

/// A retained output as it is stored.
#[derive(Debug)]
pub(crate) struct PackedOutput {
    /// The summary, for the task.
    pub(crate) retained: Retained,
    /// The text of the summary.
    pub(crate) summary: String,
    /// Size of all output in bytes.
    pub(crate) total: u64,
    /// The text of the runs: position, stream and length of each.
    pub(crate) runs: String,
    /// How many bytes `data` stands for.
    pub(crate) size: usize,
    /// The bytes, or if that is smaller, an LZ4 block of them.
    pub(crate) data: Vec<u8>,
}

impl PackedOutput {
    /// Packs an output. Takes about a millisecond for each MiB.
    pub(crate) fn pack(output: &RetainedOutput) -> Result<Self, StoreError> {
        let retained = output.summary();
        let gaps = retained.gaps.iter().map(|gap| (gap.start, gap.end)).collect();
        let runs: Vec<_> = output.runs.iter().map(|run| (run.offset, number(run.stream), run.length)).collect();
        let block = lz4_flex::block::compress(&output.bytes);
        Ok(Self {
            summary: super::encode(&Summary { bytes: retained.bytes, gaps })?,
            retained,
            total: output.total,
            runs: super::encode(&runs)?,
            size: output.bytes.len(),
            data: if block.len() < output.bytes.len() { block } else { output.bytes.clone() },
        })
    }

    /// The bytes that are counted for it.
    pub(crate) fn weight(&self) -> usize {
        self.runs.len() + self.data.len() + OVERHEAD
    }
}

/// The summary back.
pub(crate) fn decode_retained(text: &[u8]) -> Result<Retained, Undecodable> {
    let Summary { bytes, gaps } = serde_json::from_slice(text).map_err(|_| unclear())?;
    Ok(Retained { bytes, gaps: gaps.into_iter().map(|(start, end)| Gap { start, end }).collect() })
}

/// The output back.
pub(crate) fn decode_output(total: u64, runs: &[u8], size: usize, data: &[u8]) -> Result<RetainedOutput, Undecodable> {
    let runs: Vec<(u64, u8, usize)> = serde_json::from_slice(runs).map_err(|_| unclear())?;
    let bytes = if data.len() == size {
        data.to_vec()
    } else if size <= LIMIT {
        lz4_flex::block::decompress(data, size).map_err(|_| unclear())?
    } else {
        return Err(unclear());
    };
    let runs =
        runs.into_iter().map(|(offset, stream, length)| Some(Run { offset, stream: stream_of(stream)?, length }));
    let runs: Vec<Run> = runs.collect::<Option<_>>().ok_or_else(unclear)?;
    if bytes.len() != size || runs.iter().try_fold(0_usize, |sum, run| sum.checked_add(run.length)) != Some(size) {
        return Err(unclear());
    }
    Ok(RetainedOutput { total, runs, bytes })
}

fn unclear() -> Undecodable {
    Undecodable("the retained output does not fit its description".to_owned())
}

fn number(stream: Stream) -> u8 {
    match stream {
        Stream::Both => 0,
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

fn stream_of(number: u8) -> Option<Stream> {
    [Stream::Both, Stream::Stdout, Stream::Stderr].into_iter().find(|stream| self::number(*stream) == number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn output(bytes: &[u8]) -> RetainedOutput {
        let mut output = RetainedOutput::of(bytes.len() as u64 + 7);
        output.push(0, Stream::Stdout, &bytes[..bytes.len() / 2]);
        output.push(bytes.len() as u64 / 2 + 7, Stream::Stderr, &bytes[bytes.len() / 2..]);
        output
    }

    #[test]
    fn packed_output_reads_back_unchanged() {
        for bytes in [&b"x"[..], b"0123456789", &b"many lines\n".repeat(1000)] {
            let output = output(bytes);
            let packed = PackedOutput::pack(&output).unwrap();
            assert_eq!(packed.data.len() < packed.size, bytes.len() > 100);
            assert_eq!(decode_retained(packed.summary.as_bytes()).unwrap(), output.summary());
            let back = decode_output(packed.total, packed.runs.as_bytes(), packed.size, &packed.data).unwrap();
            assert_eq!(back, output);
        }
    }

    #[test]
    fn damaged_output_is_undecodable() {
        let packed = PackedOutput::pack(&output(b"0123456789")).unwrap();
        let read = |runs: &str, size, data: &[u8]| decode_output(packed.total, runs.as_bytes(), size, data).is_err();
        assert!(read("[]", packed.size, &packed.data));
        assert!(read("[[0,9,10]]", packed.size, &packed.data));
        assert!(read(&packed.runs, packed.size + 1, &packed.data));
        assert!(read(&packed.runs, usize::MAX, &packed.data));
        assert!(read(&packed.runs, packed.size, &packed.data[1..]));
    }
}
