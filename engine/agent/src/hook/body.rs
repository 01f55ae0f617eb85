//! What a request to a hook says.

use data_encoding::BASE64;
use isonomy_kafka::cursor::TopicId;
use isonomy_kafka::decision::Decision;
use serde_json::{Map, Value, json};

/// The body of a request.
pub(super) fn json(decision: &Decision) -> String {
    let Decision { id, key, key_seq, value, .. } = decision;
    let mut object = Map::new();
    object.insert("id".into(), id.to_string().into());
    put(&mut object, "key", Some(key));
    object.insert("key_seq".into(), json!(key_seq));
    put(&mut object, "value", value.as_deref());
    object.insert("deleted".into(), value.is_none().into());
    object.insert("epoch".into(), id.epoch.0.into());
    object.insert("shard".into(), id.shard.0.into());
    Value::Object(object).to_string()
}

/// Puts bytes as text if they are UTF-8, otherwise in base64 under a name that says so.
fn put(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    let text = bytes.map(std::str::from_utf8);
    object.insert(name.into(), text.and_then(Result::ok).map_or(Value::Null, Value::from));
    if let (Some(bytes), Some(Err(_))) = (bytes, text) {
        object.insert(format!("{name}_base64"), BASE64.encode(bytes).into());
    }
}

/// The name of a decision over all clusters. A topic has one id in all the world, and the place in it one decision.
pub(super) fn idempotency_key(topic: TopicId, decision: &Decision) -> String {
    let Decision { partition, offset, id, .. } = decision;
    format!("{topic}/{partition}/{offset}/{}", id.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::id::{CommandId, Epoch, InstanceId, ReplicaId, ShardId};

    fn decision(key: &[u8], value: Option<&[u8]>) -> Decision {
        let instance = InstanceId::new(ReplicaId(1), 9);
        Decision {
            partition: 3,
            offset: 70,
            id: CommandId { epoch: Epoch(2), shard: ShardId(3), instance, index: 4 },
            key: key.into(),
            key_seq: 7,
            value: value.map(Into::into),
            time_ms: Some(5),
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_in_base64() {
        let text = |decision: &Decision| serde_json::from_str::<Value>(&json(decision)).unwrap();
        assert_eq!(
            text(&decision("é".as_bytes(), Some(b"{}"))),
            json!({"id": "2.3.1.9.4", "key": "é", "key_seq": 7, "value": "{}", "deleted": false, "epoch": 2, "shard": 3})
        );
        assert_eq!(
            text(&decision(b"\xff\0", Some(b"\xfe"))),
            json!({"id": "2.3.1.9.4", "key": null, "key_base64": "/wA=", "key_seq": 7, "value": null,
                   "value_base64": "/g==", "deleted": false, "epoch": 2, "shard": 3})
        );
        assert_eq!(
            text(&decision(b"k", None)),
            json!({"id": "2.3.1.9.4", "key": "k", "key_seq": 7, "value": null, "deleted": true, "epoch": 2, "shard": 3})
        );
    }

    #[test]
    fn a_decision_has_one_name_in_all_clusters() {
        let name = idempotency_key(TopicId([0xab; 16]), &decision(b"k", None));
        assert_eq!(name, format!("{}/3/70/4", "ab".repeat(16)));
    }
}
