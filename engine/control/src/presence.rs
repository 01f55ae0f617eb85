//! What a living member publishes: where it listens now. It serves liveness only, never safety.

use crate::id::{Incarnation, MemberId};
use crate::record::Address;
use serde::{Deserialize, Serialize};

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

/// The value of the key; the key names the member.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    incarnation: Incarnation,
    address: Address,
}

impl Presence {
    pub(crate) fn parse(id: MemberId, bytes: &[u8]) -> Result<Presence, serde_json::Error> {
        let Value { incarnation, address } = serde_json::from_slice(bytes)?;
        Ok(Presence { id, incarnation, address })
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let value = Value { incarnation: self.incarnation, address: self.address.clone() };
        serde_json::to_vec(&value).expect("a presence has a JSON form")
    }
}
