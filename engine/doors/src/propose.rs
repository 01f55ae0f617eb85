//! `POST /v1/propose`: one decision.

use crate::cluster::Done;
use crate::headers::{check_type, deadline};
use crate::json::{self, JSON};
use crate::problem::Refusal;
use crate::proposal::Order;
use crate::router::Rooms;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

pub(crate) async fn propose(
    State(house): Rooms,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let deadline = deadline(&headers)?;
    check_type(&headers, &[JSON])?;
    let held = house.room.read(body).await?;
    let order = Order::parse(&headers, &held.bytes)?;
    let _place = house.enter()?;
    let request_key = order.request_key().map(ToOwned::to_owned);
    let done = house.cluster.submit(order, deadline).await?;
    Ok(json::answer(to_line(&done, request_key.as_deref())))
}

/// The outcome as one line of JSON, with the key that the request got if it named none.
pub(crate) fn to_line(done: &Done, request_key: Option<&str>) -> Vec<u8> {
    json::line(&match done {
        Done::Committed(committed) => json::Outcome {
            command_id: Some(committed.id.to_string()),
            status: "committed",
            key: request_key,
            key_seq: committed.key_seq,
            shard: committed.id.shard.0,
            payload: json::Payload::default(),
        },
        Done::Rejected { shard, key_seq, value } => json::Outcome {
            command_id: None,
            status: "rejected",
            key: None,
            key_seq: *key_seq,
            shard: shard.0,
            payload: value.as_deref().map(json::Payload::of).unwrap_or_default(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::client::Committed;
    use isonomy_wire::id::{CommandId, ShardId};

    #[test]
    fn an_outcome_is_one_line() {
        let done = Done::Committed(Committed { id: CommandId::default(), key_seq: 3 });
        let line = String::from_utf8(to_line(&done, None)).unwrap();
        assert_eq!(
            line,
            "{\"command_id\":\"0.0.0.0.0\",\"status\":\"committed\",\"key_seq\":3,\"shard\":0}\n"
        );
        assert!(
            String::from_utf8(to_line(&done, Some("isonomy/request/key/a")))
                .unwrap()
                .contains("request/key/a")
        );
        let rejected = |value: Option<&[u8]>| {
            let value = value.map(<[u8]>::to_vec);
            String::from_utf8(to_line(&Done::Rejected { shard: ShardId(2), key_seq: 7, value }, None))
                .unwrap()
        };
        let begin = "{\"status\":\"rejected\",\"key_seq\":7,\"shard\":2";
        assert_eq!(rejected(None), format!("{begin}}}\n"));
        // A line stays a line, whatever the payload's spaces are.
        assert_eq!(rejected(Some(b"{\n\"a\" :\r 1}")), format!("{begin},\"payload\":{{ \"a\" :  1}}}}\n"));
        assert_eq!(rejected(Some(b"\xff\0")), format!("{begin},\"payload_base64\":\"/wA=\"}}\n"));
        assert_eq!(rejected(Some(b"no JSON")), format!("{begin},\"payload_base64\":\"bm8gSlNPTg==\"}}\n"));
    }
}
