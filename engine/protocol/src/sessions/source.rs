//! The further state of a named session: its owner, and the digest of its commands (S5).

use bytes::{Buf, BufMut, Bytes};
use isonomy_wire::command::{Attach, Command};
use isonomy_wire::source::{Owner, Said, SourceName, Standing};

/// The further state of a named session.
#[derive(Clone, Default, Debug)]
pub(super) struct Source {
    pub(super) owner: Owner,
    /// The name; `None` before a process has attached.
    pub(super) name: Option<SourceName>,
    said: Said,
}

impl Source {
    /// A command that is no Skip has executed.
    pub(super) fn on_command(&mut self, command: &Command<'_>) {
        self.said.on_command(command);
    }

    /// Changes the owner, if the Attach expects the present one. Returns whether it did.
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

    /// The digest of all commands that have executed.
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
