//! From the words of protobuf to orders, and from what was done to the words of protobuf.

use super::proto::{self, delete_request, outcome, proposal};
use crate::cluster::Done;
use crate::identity::IdempotencyKey;
use crate::problem::{Problem, Refusal};
use crate::proposal::{Order, check_own_key, check_value};

/// A proposal as an order for the cluster.
pub(super) fn order(proposal: Option<proto::Proposal>) -> Result<Order, Refusal> {
    let missing = || Problem::BadField.because("proposal is missing");
    let proto::Proposal { key, value, expected_seq, name } = proposal.ok_or_else(missing)?;
    let name = match name {
        None => None,
        Some(proposal::Name::IdempotencyKey(text)) => Some(single(text)?),
        Some(proposal::Name::RequestName(pair)) => Some(of_pair(pair)?),
    };
    check_value("value", &value)?;
    let key = match key.is_empty() {
        true => None,
        false => {
            check_own_key(&key)?;
            Some(key)
        }
    };
    Order::of(key, value, expected_seq, name)
}

/// The name of a request to delete.
pub(super) fn name_of_delete(name: Option<delete_request::Name>) -> Result<Option<IdempotencyKey>, Refusal> {
    Ok(match name {
        None => None,
        Some(delete_request::Name::IdempotencyKey(text)) => Some(single(text)?),
        Some(delete_request::Name::RequestName(pair)) => Some(of_pair(pair)?),
    })
}

fn single(text: String) -> Result<IdempotencyKey, Refusal> {
    IdempotencyKey::single("idempotency_key", text).map_err(|why| Problem::BadField.because(why))
}

fn of_pair(pair: proto::RequestName) -> Result<IdempotencyKey, Refusal> {
    let proto::RequestName { client_id, request_id } = pair;
    IdempotencyKey::pair(client_id, request_id).map_err(|why| Problem::BadField.because(why))
}

/// The outcome of a proposal, with the key that the request got if it named none.
pub(super) fn outcome(done: Done, request_key: Option<String>) -> proto::Outcome {
    let outcome = match done {
        Done::Committed(committed) => outcome::Outcome::Committed(proto::Committed {
            command_id: committed.id.to_string(),
            key_seq: committed.key_seq,
            shard: committed.id.shard.0.into(),
            key: request_key.map(String::into_bytes).unwrap_or_default(),
        }),
        Done::Rejected { shard, key_seq, value } => {
            outcome::Outcome::Rejected(proto::Rejected { key_seq, shard: shard.0.into(), value })
        }
    };
    proto::Outcome { outcome: Some(outcome) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
    use proposal::Name;

    fn proposal(key: &[u8], expected_seq: Option<u64>, name: Option<Name>) -> proto::Proposal {
        proto::Proposal { key: key.to_vec(), value: b"\0\xff".to_vec(), expected_seq, name }
    }

    #[test]
    fn a_proposal_asks_for_what_it_asks_for_by_http() {
        let value = b"\0\xff".to_vec();
        let decide = Order::Decide { key: b"k".to_vec(), value: value.clone(), name: None };
        assert_eq!(order(Some(proposal(b"k", None, None))), Ok(decide));
        let name = || Some(Name::IdempotencyKey("n".into()));
        let single = Some(IdempotencyKey::Single("n".into()));
        let decide = Order::DecideIf { key: b"k".to_vec(), value: value.clone(), expected: 0, name: single };
        assert_eq!(order(Some(proposal(b"k", Some(0), name()))), Ok(decide));
        let once = Order::DecideOnce { key: "isonomy/request/key/n".into(), value: value.clone() };
        assert_eq!(order(Some(proposal(b"", None, name()))), Ok(once));
        let pair = proto::RequestName { client_id: "a".into(), request_id: "b".into() };
        let once = Order::DecideOnce { key: "isonomy/request/client/a/b".into(), value };
        assert_eq!(order(Some(proposal(b"", None, Some(Name::RequestName(pair))))), Ok(once));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let name = |text: &str| Some(Name::IdempotencyKey(text.into()));
        let half = proto::RequestName { client_id: "a".into(), request_id: String::new() };
        let large = proto::Proposal { value: vec![0; VALUE_BYTES_MAX + 1], ..proposal(b"k", None, None) };
        for (wrong, problem, why) in [
            (None, Problem::BadField, "proposal is missing"),
            (Some(proposal(&[0; KEY_BYTES_MAX + 1], None, None)), Problem::BadField, "1025 bytes"),
            (Some(proposal(b"isonomy/request/a", None, None)), Problem::BadField, "belong to requests"),
            (Some(proposal(b"", Some(1), None)), Problem::BadField, "without a key"),
            (Some(proposal(b"k", None, name(""))), Problem::BadField, "idempotency_key has 0 bytes"),
            (
                Some(proposal(b"k", None, Some(Name::RequestName(half)))),
                Problem::BadField,
                "request_id has 0",
            ),
            (Some(large), Problem::TooLarge, "1048577 bytes"),
        ] {
            let refusal = order(wrong).unwrap_err();
            assert_eq!(refusal.problem, problem);
            assert!(refusal.why.contains(why), "{}", refusal.why);
        }
    }
}
