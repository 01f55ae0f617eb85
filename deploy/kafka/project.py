#!/usr/bin/env python3
"""Keeps the latest decision of each key of a topic in an SQLite file, in either format of docs/KAFKA.md.

Needs confluent-kafka (pip install confluent-kafka). The positions are written in the transaction that writes the rows, so
that a restart goes on exactly where the file is, whatever ended the program. It reads to where the topic ends; with --follow it
goes on. `isonomy agent` does the same, with checks, metrics and a hook.

    deploy/kafka/project.py --brokers 127.0.0.1:9092 --topic committed --file orders.db
    sqlite3 orders.db "SELECT key, value FROM latest"
"""

import argparse
import sqlite3
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from read import of_batch, of_record

TABLES = """
CREATE TABLE IF NOT EXISTS source (one INTEGER PRIMARY KEY CHECK (one = 1), topic_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS positions (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS latest (
    key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL, key_seq INTEGER NOT NULL, id TEXT NOT NULL
);
"""
# How many records are applied at once, and how long they are waited for, in seconds.
RECORDS_MAX = 1000
WAIT = 0.2


def plain(raw):
    """Bytes as TEXT where they are text, else as BLOB, so that people can query them. Equal bytes are stored alike."""
    try:
        return raw if b"\0" in raw else raw.decode()
    except UnicodeDecodeError:
        return raw


def decisions(record):
    """The decisions of a record, whichever format it has."""
    is_decision = any(name == "id" for name, _ in record.headers() or [])
    return of_record(record) if is_decision else of_batch(record.value())


def apply(db, decision):
    """Writes one decision, if it follows the one before of its key: 1, 2, 3 and so on, and a delete repeats the last."""
    key, value, key_seq = plain(decision["key"]), decision["value"], decision["key_seq"]
    found = db.execute("SELECT key_seq FROM latest WHERE key = ?", [key]).fetchone()
    latest = found[0] if found else 0
    if key_seq != (latest if value is None else latest + 1):
        raise ValueError(f"decision {decision['id']} has key_seq {key_seq}, and the file has {latest}; make the file anew")
    if value is None:
        db.execute("DELETE FROM latest WHERE key = ?", [key])
    else:
        row = [key, plain(value), key_seq, decision["id"]]
        db.execute("INSERT OR REPLACE INTO latest (key, value, key_seq, id) VALUES (?, ?, ?, ?)", row)


def check_topic(db, admin, topic):
    """A topic that was deleted and created again has another id, and the positions mean nothing in it."""
    described = admin.describe_topics(TopicCollection([topic]))[topic].result(timeout=10)
    with db:
        db.execute("INSERT OR IGNORE INTO source VALUES (1, ?)", [str(described.topic_id)])
    if db.execute("SELECT topic_id FROM source").fetchone() != (str(described.topic_id),):
        raise ValueError(f"the file was made of another topic than {topic} is now; make it anew")
    return [partition.id for partition in described.partitions]


def project(db, brokers, topic, follow):
    """Applies records, as many as come at once in one transaction with the positions behind them."""
    common = {"bootstrap.servers": brokers}
    partitions = check_topic(db, AdminClient(common), topic)
    consumer = Consumer(
        {
            **common,
            "group.id": "isonomy-project",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
        }
    )
    positions = dict(db.execute("SELECT partition, next_offset FROM positions"))
    consumer.assign([TopicPartition(topic, it, positions.get(it, OFFSET_BEGINNING)) for it in partitions])
    left = set(partitions)
    while left or follow:
        records = consumer.consume(RECORDS_MAX, WAIT)
        with db:
            for record in records:
                if record.error() is None:
                    for decision in decisions(record):
                        apply(db, decision)
                    place = [record.partition(), record.offset() + 1]
                    db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", place)
                elif record.error().code() == KafkaError._PARTITION_EOF:
                    left.discard(record.partition())
                else:
                    raise ValueError(str(record.error()))
    consumer.close()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--brokers", required=True, help="HOST:PORT,HOST:PORT")
    options.add_argument("--topic", default="committed")
    options.add_argument("--file", required=True, help="the SQLite file, created if there is none")
    options.add_argument("--follow", action="store_true", help="wait for more at the end")
    options = options.parse_args()
    db = sqlite3.connect(options.file)
    db.execute("PRAGMA journal_mode = wal")
    db.executescript(TABLES)
    project(db, options.brokers, options.topic, options.follow)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"project.py: {error}")
