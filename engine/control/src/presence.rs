//! What a living member publishes: where it listens now. It serves liveness only, never safety.

use crate::id::{Incarnation, MemberId};
use crate::record::Address;
use isonomy_wire::address::is_host;

/// A member that has published a sign of life not long ago.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Presence {
    /// The member.
    pub id: MemberId,
    /// The data directory that it takes part with. The record says whether that is the right one.
    pub incarnation: Incarnation,
    /// Where it listens, which may be elsewhere than the record says.
    pub address: Address,
}

impl Presence {
    /// Whether a replica with so many shards can listen there. Everybody who may write to etcd can publish anything.
    #[must_use]
    pub fn is_possible(&self, shards: u16) -> bool {
        let Address { host, peer_base, client_base } = &self.address;
        let has_ports = |base: u16| base > 0 && shards > 0 && base.checked_add(shards - 1).is_some();
        is_host(host) && has_ports(*peer_base) && has_ports(*client_base)
    }

    /// Reads the value of a key, which is the address. The key names the member and its directory.
    pub(crate) fn parse(
        id: MemberId,
        incarnation: Incarnation,
        bytes: &[u8],
    ) -> Result<Presence, serde_json::Error> {
        Ok(Presence { id, incarnation, address: serde_json::from_slice(bytes)? })
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.address).expect("an address has a JSON form")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_where_nobody_can_listen_is_not_taken() {
        let at = |host: &str, peer_base, client_base| Presence {
            id: MemberId(0),
            incarnation: Incarnation(1),
            address: Address { host: host.into(), peer_base, client_base },
        };
        assert!(at("db1", 7100, 65_534).is_possible(2) && at("db1", 7100, 65_535).is_possible(1));
        assert!(!at("db1", 7100, 65_535).is_possible(2), "its second shard has no port");
        assert!(!at("db1", 0, 7400).is_possible(1));
        assert!(!at("db1:7100", 7100, 7400).is_possible(1) && !at("", 7100, 7400).is_possible(1));
    }
}
