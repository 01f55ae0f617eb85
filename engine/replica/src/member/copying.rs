//! How much of the state a new member has copied.

use isonomy_wire::message::ShardStatus;
use std::collections::BTreeMap;
use std::time::Duration;

/// What has come of the state, and of how much, in bytes.
#[derive(Clone, Copy, Default)]
struct Copied {
    bytes: u64,
    of: u64,
}

/// What a new member has copied so far, in all shards together.
#[derive(Default)]
pub(super) struct Copying {
    shards: BTreeMap<u16, Copied>,
    /// When the first bytes were seen, and how many.
    began: Option<(Duration, u64)>,
}

impl Copying {
    /// Takes the status of all shards; `now` is the time since the command began.
    pub(super) fn on_status(&mut self, now: Duration, shards: &[ShardStatus]) {
        for ShardStatus { shard, fetched: (bytes, of), .. } in shards {
            match self.shards.get_mut(&shard.0) {
                _ if *of > 0 => drop(self.shards.insert(shard.0, Copied { bytes: *bytes, of: *of })),
                // It is fetched no more, so it has come.
                Some(copied) => copied.bytes = copied.of,
                None => {}
            }
        }
        let Copied { bytes, of } = self.all();
        if of > 0 && self.began.is_none() {
            self.began = Some((now, bytes));
        }
    }

    fn all(&self) -> Copied {
        let sum = |sum: Copied, it: &Copied| Copied { bytes: sum.bytes + it.bytes, of: sum.of + it.of };
        self.shards.values().fold(Copied::default(), sum)
    }

    /// The bytes, the share and the time that is left, once something is fetched.
    pub(super) fn describe(&self, now: Duration) -> Option<String> {
        let (Copied { bytes, of }, (began, first)) = (self.all(), self.began?);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let text = format!("has copied {:.1} of {:.1} MiB ({} %)", mib(bytes), mib(of), bytes * 100 / of);
        let (come, left) = (bytes.saturating_sub(first), of.saturating_sub(bytes));
        let elapsed = now.saturating_sub(began).as_secs_f64();
        Some(match (come, left) {
            (_, 0) => text,
            (0, _) => format!("{text}, and nothing since {elapsed:.0} s"),
            _ => format!("{text}, about {:.0} s left", elapsed * left as f64 / come as f64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::id::ShardId;

    fn status(shard: u16, fetched: (u64, u64)) -> ShardStatus {
        ShardStatus { shard: ShardId(shard), fetched, ..ShardStatus::default() }
    }

    #[test]
    fn bytes_share_and_time_are_those_of_all_shards() {
        let mut copying = Copying::default();
        let at = Duration::from_secs;
        copying.on_status(at(1), &[status(0, (0, 0)), status(1, (0, 0))]);
        assert_eq!(copying.describe(at(1)), None);
        copying.on_status(at(2), &[status(0, (0, 6 << 20)), status(1, (0, 2 << 20))]);
        assert_eq!(
            copying.describe(at(5)).unwrap(),
            "has copied 0.0 of 8.0 MiB (0 %), and nothing since 3 s"
        );
        copying.on_status(at(4), &[status(0, (2 << 20, 6 << 20)), status(1, (0, 0))]);
        assert_eq!(copying.describe(at(4)).unwrap(), "has copied 4.0 of 8.0 MiB (50 %), about 2 s left");
        copying.on_status(at(9), &[status(0, (0, 0)), status(1, (0, 0))]);
        assert_eq!(copying.describe(at(9)).unwrap(), "has copied 8.0 of 8.0 MiB (100 %)");
    }
}
