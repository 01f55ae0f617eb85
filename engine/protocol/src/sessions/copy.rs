//! Sessions as bytes, as a snapshot keeps them.

use super::source::Source;
use super::{Session, Sessions, Stored};
use bytes::{Buf, BufMut, Bytes};
use isonomy_wire::answer::Answers;
use isonomy_wire::id::SessionId;

/// Why bytes are not a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadSession;

impl Sessions {
    /// Appends a session to `out`.
    pub(crate) fn encode(id: SessionId, session: &Session, out: &mut Vec<u8>) {
        out.put_u64_le(id.high);
        out.put_u64_le(id.low);
        out.put_u64_le(session.low);
        out.put_u64_le(session.answered_below);
        if let Some(source) = &session.source {
            source.encode(out);
        }
        out.put_u32_le(session.stored.len() as u32);
        session.stored.iter().for_each(|stored| stored.encode(out));
    }

    /// Loads sessions that are not there yet. Returns how many.
    pub(crate) fn load(&mut self, mut bytes: Bytes) -> Result<u32, BadSession> {
        let mut sessions = 0;
        while !bytes.is_empty() {
            let id = SessionId { high: number(&mut bytes)?, low: number(&mut bytes)? };
            let session = Session::decode(id, &mut bytes)?;
            if !(id.is_opened() || id.is_named() || id.is_keyed()) || self.sessions.contains_key(&id) {
                return Err(BadSession);
            }
            self.insert(id, session);
            sessions += 1;
        }
        Ok(sessions)
    }
}

impl Session {
    fn decode(id: SessionId, bytes: &mut Bytes) -> Result<Session, BadSession> {
        let (low, answered_below) = (number(bytes)?, number(bytes)?);
        let source =
            id.is_named().then(|| Source::decode(bytes).map(Box::new).ok_or(BadSession)).transpose()?;
        let mut session = Session { low, answered_below, source, ..Session::default() };
        for _ in 0..count(bytes)? {
            let stored = Stored::decode(bytes)?;
            session.stored_bytes += stored.response.len();
            session.stored.push_back(stored);
        }
        Ok(session)
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

    fn decode(bytes: &mut Bytes) -> Result<Stored, BadSession> {
        let (first, end) = (number(bytes)?, number(bytes)?);
        let mut starts = Vec::new();
        for _ in 0..count(bytes)? {
            starts.push(number(bytes)?);
        }
        let length = count(bytes)? as usize;
        if length > bytes.len() || end <= first {
            return Err(BadSession);
        }
        let response = isonomy_wire::frame::aligned(bytes.split_to(length));
        Answers::parse(response.clone()).map_err(|_| BadSession)?;
        let starts = (!starts.is_empty()).then(|| starts.into());
        Ok(Stored { first, end, starts, response })
    }
}

fn number(bytes: &mut Bytes) -> Result<u64, BadSession> {
    bytes.try_get_u64_le().map_err(|_| BadSession)
}

fn count(bytes: &mut Bytes) -> Result<u32, BadSession> {
    bytes.try_get_u32_le().map_err(|_| BadSession)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::answer::ResponseBuilder;
    use isonomy_wire::command::Attach;
    use isonomy_wire::id::{Epoch, InstanceId, ReplicaId, ShardId};
    use isonomy_wire::source::{Owner, SourceName};

    fn sessions() -> Sessions {
        let mut builder = ResponseBuilder::new(Epoch(1), ShardId(0));
        let mut sessions = Sessions::default();
        for name in ["one", "two"] {
            builder.committed(InstanceId::new(ReplicaId(0), 1), 0, 7);
            builder.committed(InstanceId::new(ReplicaId(0), 1), 1, 8);
            let response = builder.encode();
            let name: SourceName = name.parse().unwrap();
            let id = name.session(ShardId(0));
            let attach = Attach { expected: Owner(0), owner: Owner(3), name };
            sessions.begin(id);
            sessions.with(id, |session| {
                session.attach(attach);
                session.advance(7);
                session.store(1..5, Some([1, 2].into()), response.clone());
                session.store(5..7, None, response);
                session.on_answered_below(2);
            });
        }
        sessions
    }

    fn encoded(sessions: &Sessions) -> Vec<u8> {
        let mut out = Vec::new();
        sessions.iter().for_each(|(id, session)| Sessions::encode(*id, session, &mut out));
        out
    }

    #[test]
    fn what_is_kept_is_all_there_is() {
        let sessions = sessions();
        let bytes = encoded(&sessions);
        let mut copy = Sessions::default();
        assert_eq!(copy.load(bytes.clone().into()), Ok(2));
        assert_eq!(copy.hash(), sessions.hash());
        assert_eq!(format!("{copy:?}"), format!("{sessions:?}"));
        assert_eq!(encoded(&copy), bytes);
    }

    #[test]
    fn every_truncation_is_a_prefix_or_refused() {
        let bytes = encoded(&sessions());
        for length in 1..bytes.len() {
            let mut copy = Sessions::default();
            let loaded = copy.load(bytes[..length].to_vec().into());
            assert_eq!(loaded.is_ok(), length == bytes.len() / 2, "{length}");
        }
    }
}
