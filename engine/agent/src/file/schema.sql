-- The tables of a projection's file, version 1 (docs/AGENT.md). Text is stored as TEXT; what is not UTF-8, or has a zero
-- byte, is stored as BLOB.

-- The topic of which the file was made.
CREATE TABLE source (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    topic_id TEXT NOT NULL
);

-- The latest decision of each key that is alive.
CREATE TABLE latest (
    key BLOB NOT NULL PRIMARY KEY,
    value BLOB NOT NULL,
    key_seq INTEGER NOT NULL,
    id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    time_ms INTEGER
);

-- For each reader ('table', 'hook') and partition: where reading goes on, where the partition ended when Kafka was asked
-- last, and the last moment of which the reader is known to have had everything.
CREATE TABLE positions (
    reader TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    end_offset INTEGER,
    known_at_ms INTEGER,
    PRIMARY KEY (reader, partition)
) WITHOUT ROWID;

-- Decisions that the hook has refused for good and that were skipped.
CREATE TABLE skipped (
    partition INTEGER NOT NULL,
    record_offset INTEGER NOT NULL,
    id TEXT NOT NULL,
    key BLOB NOT NULL,
    key_seq INTEGER NOT NULL,
    value BLOB,
    status INTEGER NOT NULL,
    answer TEXT NOT NULL,
    skipped_at_ms INTEGER NOT NULL,
    PRIMARY KEY (partition, record_offset, id)
) WITHOUT ROWID;

-- How old what each reader shows may be, in seconds (NULL: not known yet), and how many offsets are left to read.
CREATE VIEW staleness AS
SELECT
    reader,
    CASE WHEN count(*) = count(known_at_ms)
        THEN max(0.0, round((julianday('now') - 2440587.5) * 86400.0 - min(known_at_ms) / 1000.0, 3))
    END AS seconds,
    sum(max(end_offset - next_offset, 0)) AS lag
FROM positions
GROUP BY reader;
