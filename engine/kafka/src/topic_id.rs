//! The id of a topic, which tells a topic from another one that was created later with the same name.
//!
//! librdkafka tells it, but its Rust wrapper does not. This file is all that calls librdkafka itself.
#![allow(unsafe_code)]

use crate::cursor::TopicId;
use rdkafka::bindings::*;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use std::ffi::CString;
use std::ptr;
use std::time::Duration;

/// Something of librdkafka that is given back at the end.
struct Owned<T> {
    it: *mut T,
    end: unsafe extern "C" fn(*mut T),
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.it.is_null() {
            // SAFETY: the pointer came from librdkafka's function that belongs to `end`, and nobody else has it.
            unsafe { (self.end)(self.it) }
        }
    }
}

/// The id of a topic, all zero from brokers that are too old to tell it. Asks Kafka, and waits so long for the answer.
///
/// # Errors
///
/// The code of librdkafka, which is `UnknownTopicOrPartition` if there is no such topic.
pub fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    patience: Duration,
) -> Result<TopicId, RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidArgument)?;
    let patience_ms = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    let rk = client.native_ptr();
    // SAFETY: `rk` lives as long as the client. Each pointer is used while its owner lives: the queue, the names, the
    // options and the event are dropped at the end, and what is read from the event is copied before.
    unsafe {
        let queue = Owned { it: rd_kafka_queue_new(rk), end: rd_kafka_queue_destroy };
        let mut names = [name.as_ptr()];
        let topics = Owned {
            it: rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            end: rd_kafka_TopicCollection_destroy,
        };
        let options = Owned {
            it: rd_kafka_AdminOptions_new(rk, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            end: rd_kafka_AdminOptions_destroy,
        };
        rd_kafka_AdminOptions_set_request_timeout(options.it, patience_ms, ptr::null_mut(), 0);
        rd_kafka_DescribeTopics(rk, topics.it, options.it, queue.it);
        let event = Owned { it: rd_kafka_queue_poll(queue.it, patience_ms), end: rd_kafka_event_destroy };
        if event.it.is_null() {
            return Err(RDKafkaErrorCode::OperationTimedOut);
        }
        is_well(rd_kafka_event_error(event.it))?;
        let mut count = 0;
        let described =
            rd_kafka_DescribeTopics_result_topics(rd_kafka_event_DescribeTopics_result(event.it), &mut count);
        if count != 1 {
            return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
        }
        let described = *described;
        is_well(rd_kafka_error_code(rd_kafka_TopicDescription_error(described)))?;
        let id = rd_kafka_TopicDescription_topic_id(described);
        let high = rd_kafka_Uuid_most_significant_bits(id).to_be_bytes();
        let low = rd_kafka_Uuid_least_significant_bits(id).to_be_bytes();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high);
        bytes[8..].copy_from_slice(&low);
        Ok(TopicId(bytes))
    }
}

fn is_well(code: rd_kafka_resp_err_t) -> Result<(), RDKafkaErrorCode> {
    match code {
        rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(code.into()),
    }
}
