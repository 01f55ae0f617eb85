//! What is kept of a named session besides: whose it is, and what it has said (S5).

use bytes::{Buf, BufMut, Bytes};
use isonomy_wire::command::{Attach, Command};
use isonomy_wire::source::{Owner, Said, SourceName, Standing};

/// See the module.
#[derive(Clone, Default, Debug)]
pub(super) struct Source {
    pub(super) owner: Owner,
    /// `None` before anybody has attached.
    pub(super) name: Option<SourceName>,
    said: Said,
}

impl Source {
    /// A command has executed that is no skip.
    pub(super) fn on_command(&mut self, command: &Command<'_>) {
        self.said.on_command(command);
    }

    /// Whether the owner has changed.
    pub(super) fn attach(&mut self, attach: Attach) -> bool {
        let Attach { expected, owner, name } = attach;
        if self.owner != expected {
            return false;
        }
        (self.owner, self.name) = (owner, Some(name));
        true
    }

    pub(super) fn standing(&self, low: u64) -> Standing {
        self.said.standing(self.owner, low)
    }

    pub(super) fn commands(&self) -> u64 {
        self.said.commands()
    }

    /// The digest of all that it has said.
    pub(super) fn digest(&self) -> u64 {
        self.said.digest()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let name = self.name.as_ref().map_or("", SourceName::as_str);
        out.put_u64_le(self.owner.0);
        out.put_u32_le(name.len() as u32);
        out.put_slice(name.as_bytes());
        self.said.encode(out);
    }

    pub(super) fn decode(bytes: &mut Bytes) -> Option<Source> {
        let owner = Owner(bytes.try_get_u64_le().ok()?);
        let length = bytes.try_get_u32_le().ok()? as usize;
        let name = bytes.get(..length)?;
        let name = if name.is_empty() { None } else { Some(str::from_utf8(name).ok()?.parse().ok()?) };
        bytes.advance(length);
        let mut rest = &bytes[..];
        let said = Said::decode(&mut rest)?;
        bytes.advance(bytes.len() - rest.len());
        Some(Source { owner, name, said })
    }
}
