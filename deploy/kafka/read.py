#!/usr/bin/env python3
"""Prints the decisions of a topic, one JSON object a line, in either format of docs/KAFKA.md.

Needs confluent-kafka (pip install confluent-kafka). It reads what is committed, which is that client's default, from the
first record to where the topic ends; with --follow it goes on.

    deploy/kafka/read.py --brokers 127.0.0.1:9092 --topic committed --format record
"""

import argparse
import json
import struct
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

# The head of a batch: magic, checksum, length, version, flags, shard, cluster, epoch, entries, sequence number, row.
HEAD = struct.Struct("<4sIIBBH16sIIQB15x")
# An entry: key_seq with the kind in its highest byte, length of the value, length of the key, index of the command.
ENTRY = struct.Struct("<QIHH")
DECIDED = 1


def text(raw):
    """Bytes as text, or as hexadecimal digits where they are none."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.hex()


def shown(decision):
    """A decision as it is printed."""
    value = decision["value"]
    return {**decision, "key": text(decision["key"]), "value": None if value is None else text(value)}


def of_record(record):
    """The decision of a record of format "record". Keys and values are bytes; a delete has no value."""
    headers = {name: value.decode() for name, value in record.headers() or []}
    if "id" not in headers:
        raise ValueError("a record has no header id; is the topic one of format batch?")
    yield {
        "id": headers["id"],
        "key": record.key() or b"",
        "key_seq": int(headers["key_seq"]),
        "value": record.value(),
    }


def of_batch(raw):
    """The decisions of a record of format "batch". Kafka has checked the bytes, so the checksum is not looked at."""
    if raw is None or raw[:4] != b"ISOD" or raw[12] != 1:
        raise ValueError("a record is no batch of layout 1; is the topic one of format record?")
    _, _, _, _, _, shard, _, epoch, entries, seq, row = HEAD.unpack_from(raw)
    at = HEAD.size
    for _ in range(entries):
        word, value_length, key_length, index = ENTRY.unpack_from(raw, at)
        key_at = at + ENTRY.size
        value_at = key_at + key_length
        at = value_at + value_length
        yield {
            "id": f"{epoch}.{shard}.{row}.{seq}.{index}",
            "key": raw[key_at:value_at],
            "key_seq": word & (1 << 56) - 1,
            "value": raw[value_at:at] if word >> 56 == DECIDED else None,
        }


def records(brokers, topic, follow):
    """The records of all partitions, each partition in its order."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "isonomy-read",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    found = consumer.list_topics(topic, timeout=10).topics[topic]
    if found.error is not None:
        sys.exit(f"read.py: topic {topic}: {found.error}")
    left = set(found.partitions)
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in left])
    while left or follow:
        record = consumer.poll(1.0)
        if record is None:
            continue
        if record.error() is None:
            yield record
        elif record.error().code() == KafkaError._PARTITION_EOF:
            left.discard(record.partition())
        else:
            sys.exit(f"read.py: {record.error()}")
    consumer.close()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--brokers", required=True, help="HOST:PORT,HOST:PORT")
    options.add_argument("--topic", default="committed")
    options.add_argument("--format", choices=["record", "batch"], default="record", help="publish.format of the cluster")
    options.add_argument("--follow", action="store_true", help="wait for more at the end")
    options = options.parse_args()
    for record in records(options.brokers, options.topic, options.follow):
        decisions = of_record(record) if options.format == "record" else of_batch(record.value())
        for decision in decisions:
            print(json.dumps({"partition": record.partition(), **shown(decision)}))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"read.py: {error}")
