//! Streams as bytes: what a snapshot keeps of them.

use super::source::Source;
use super::{Stored, Stream, Streams};
use bytes::{Buf, BufMut, Bytes};
use isonomy_wire::answer::Answers;
use isonomy_wire::id::StreamId;

/// Why bytes are not a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadStream;

impl Streams {
    /// Appends a stream to `out`.
    pub(crate) fn encode(id: StreamId, stream: &Stream, out: &mut Vec<u8>) {
        out.put_u64_le(id.high);
        out.put_u64_le(id.low);
        out.put_u64_le(stream.low);
        out.put_u64_le(stream.answered_below);
        if let Some(source) = &stream.source {
            source.encode(out);
        }
        out.put_u32_le(stream.stored.len() as u32);
        stream.stored.iter().for_each(|stored| stored.encode(out));
    }

    /// Takes streams in, none of which is there.
    pub(crate) fn load(&mut self, mut bytes: Bytes) -> Result<u32, BadStream> {
        let mut streams = 0;
        while !bytes.is_empty() {
            let id = StreamId { high: number(&mut bytes)?, low: number(&mut bytes)? };
            let stream = Stream::decode(id, &mut bytes)?;
            if (!id.is_opened() && !id.is_named()) || self.streams.contains_key(&id) {
                return Err(BadStream);
            }
            self.insert(id, stream);
            streams += 1;
        }
        Ok(streams)
    }
}

impl Stream {
    fn decode(id: StreamId, bytes: &mut Bytes) -> Result<Stream, BadStream> {
        let (low, answered_below) = (number(bytes)?, number(bytes)?);
        let source =
            id.is_named().then(|| Source::decode(bytes).map(Box::new).ok_or(BadStream)).transpose()?;
        let mut stream = Stream { low, answered_below, source, ..Stream::default() };
        for _ in 0..count(bytes)? {
            let stored = Stored::decode(bytes)?;
            stream.stored_bytes += stored.response.len();
            stream.stored.push_back(stored);
        }
        Ok(stream)
    }
}

impl Stored {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.first);
        out.put_u64_le(self.end);
        let starts = self.starts.as_deref().unwrap_or_default();
        out.put_u32_le(starts.len() as u32);
        starts.iter().for_each(|start| out.put_u64_le(*start));
        out.put_u32_le(self.response.len() as u32);
        out.put_slice(&self.response);
    }

    fn decode(bytes: &mut Bytes) -> Result<Stored, BadStream> {
        let (first, end) = (number(bytes)?, number(bytes)?);
        let mut starts = Vec::new();
        for _ in 0..count(bytes)? {
            starts.push(number(bytes)?);
        }
        let length = count(bytes)? as usize;
        if length > bytes.len() || end <= first {
            return Err(BadStream);
        }
        let response = isonomy_wire::frame::aligned(bytes.split_to(length));
        Answers::parse(response.clone()).map_err(|_| BadStream)?;
        let starts = (!starts.is_empty()).then(|| starts.into());
        Ok(Stored { first, end, starts, response })
    }
}

fn number(bytes: &mut Bytes) -> Result<u64, BadStream> {
    bytes.try_get_u64_le().map_err(|_| BadStream)
}

fn count(bytes: &mut Bytes) -> Result<u32, BadStream> {
    bytes.try_get_u32_le().map_err(|_| BadStream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::answer::ResponseBuilder;
    use isonomy_wire::command::Attach;
    use isonomy_wire::id::{Epoch, InstanceId, ReplicaId, ShardId};
    use isonomy_wire::source::{Owner, SourceName};

    fn streams() -> Streams {
        let mut builder = ResponseBuilder::new(Epoch(1), ShardId(0));
        let mut streams = Streams::default();
        for name in ["one", "two"] {
            builder.committed(InstanceId::new(ReplicaId(0), 1), 0, 7);
            builder.committed(InstanceId::new(ReplicaId(0), 1), 1, 8);
            let response = builder.encode();
            let name: SourceName = name.parse().unwrap();
            let id = name.stream(ShardId(0));
            let attach = Attach { expected: Owner(0), owner: Owner(3), name };
            streams.begin(id);
            streams.with(id, |stream| {
                stream.attach(attach);
                stream.advance(7);
                stream.store(1, 4, Some([1, 2].into()), response.clone());
                stream.store(5, 2, None, response);
                stream.on_answered_below(2);
            });
        }
        streams
    }

    fn encoded(streams: &Streams) -> Vec<u8> {
        let mut out = Vec::new();
        streams.iter().for_each(|(id, stream)| Streams::encode(*id, stream, &mut out));
        out
    }

    #[test]
    fn what_is_kept_is_all_there_is() {
        let streams = streams();
        let bytes = encoded(&streams);
        let mut copy = Streams::default();
        assert_eq!(copy.load(bytes.clone().into()), Ok(2));
        assert_eq!(copy.hash(), streams.hash());
        assert_eq!(format!("{copy:?}"), format!("{streams:?}"));
        assert_eq!(encoded(&copy), bytes);
    }

    #[test]
    fn every_truncation_is_a_prefix_or_refused() {
        let bytes = encoded(&streams());
        for length in 1..bytes.len() {
            let mut copy = Streams::default();
            let loaded = copy.load(bytes[..length].to_vec().into());
            assert_eq!(loaded.is_ok(), length == bytes.len() / 2, "{length}");
        }
    }
}
