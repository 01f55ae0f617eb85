//! The decisions of a seed before anything happens: who takes part, what fails, and how often.
//!
//! Each class of faults is off in a good part of the seeds (swarm testing): a fault that is
//! always there hides what only happens without it.

use isonomy_protocol::contract::Timing;
use isonomy_wire::conversation::Routing;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// How a run begins. Known faults need a state that random schedules reach once in millions of
/// runs; a bias brings them there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bias {
    /// No bias.
    Fair,
    /// Hardly any Commit arrives.
    CommitsLost,
    /// Each proposal reaches one or two others only.
    FewHear,
    /// Answers to proposals arrive, but the coordinator crashes soon after.
    CoordinatorsDie,
    /// Coordinators crash before their own record is durable.
    OwnRecordsLost,
    /// Conflicting proposals each reach one or two others, and their coordinators die: recoveries
    /// meet, and wait for each other.
    Orphans,
}

/// While the bias lasts, coordinators do not hear all that would let them end their instances.
#[derive(Clone, Copy, Debug)]
pub struct Deaf {
    /// The only coordinator that dies.
    pub orphan: u8,
    /// The share of what they are asked in the recovery of their own instances (R1).
    pub recovers: f64,
    /// The share of answers to Accept (C4).
    pub accepts: f64,
}

/// The share of the seeds in which nothing fails.
const QUIET_SHARE: f64 = 0.08;
/// The share in which replicas crash all the time and cut their logs as often.
const RESTLESS_SHARE: f64 = 0.06;
/// The share in which a copy of the state takes several pieces.
const BULKY_SHARE: f64 = 0.02;

/// The share in which recoveries wait for each other.
const WAITING_SHARE: f64 = 0.02;

/// The share in which settings change.
const TUNED_SHARE: f64 = 0.3;
/// The most members at first where the members change, and how many processes there are besides.
const CHANGING_MAX: u8 = 7;
const SPARE: u8 = 2;
/// The share in which the members change.
const CHANGING_SHARE: f64 = 0.12;

/// Chances are per message or per occasion; times are microseconds.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Tell what happens, on standard error.
    pub trace: bool,
    /// The number of members at first.
    pub n: u8,
    /// The number of processes that can be members.
    pub pool: u8,
    /// The core's timers.
    pub timing: Timing,
    /// The log grows by so much from one barrier to the next.
    pub barrier_bytes: u64,
    /// Recoveries rescue what they would abort.
    pub rescue: bool,
    /// Nothing fails, and nobody is impatient: see [`Plan::without_faults`].
    pub quiet: bool,
    /// How the run begins.
    pub bias: Bias,
    /// The share of proposals that the bias loses.
    pub unheard: f64,
    /// What coordinators do not hear, if the bias is [`Bias::Orphans`].
    pub deaf: Option<Deaf>,
    /// How long the bias lasts.
    pub bias_us: u64,
    /// How long faults are injected.
    pub faults_us: u64,
    /// A message is lost.
    pub loss: f64,
    /// A message arrives twice.
    pub duplication: f64,
    /// Messages of one link overtake each other.
    pub reordering: bool,
    /// A message takes a hundred times as long.
    pub tail: f64,
    /// The usual delay of a message.
    pub delay_us: u64,
    /// The time between two partitions; 0 for none.
    pub partition_every_us: u64,
    /// The time between two resets of a link; 0 for none.
    pub reset_every_us: u64,
    /// The time between two crashes; 0 for none.
    pub crash_every_us: u64,
    /// The time between two pauses of a process; 0 for none.
    pub pause_every_us: u64,
    /// A crash takes all replicas down at once.
    pub all_crash: f64,
    /// A crash leaves the disk damaged, for up to f replicas.
    pub damage: f64,
    /// The time between two copies of a disk, one of which may be put back later; 0 for none.
    pub copy_every_us: u64,
    /// A write fails, which ends the process.
    pub write_fails: f64,
    /// The time between two occasions when a disk has no room for more segments or a snapshot; 0 for none.
    pub full_every_us: u64,
    /// The time between two occasions when no write of a disk ends for 1 to 5 seconds; 0 for none.
    pub hang_every_us: u64,
    /// A bit of a snapshot's file flips while its replica runs, for up to f replicas.
    pub rot: f64,
    /// A process ends between keeping a snapshot and counting on it.
    pub between: f64,
    /// The share of crashes that are stops in good order.
    pub stops: f64,
    /// The time between two jumps of a clock; 0 for none.
    pub jump_every_us: u64,
    /// The time between two requests of a client that follows no rule; 0 for none.
    pub wrong_every_us: u64,
    /// The time between two occasions at which a replica gets other settings; 0 for none.
    pub tune_every_us: u64,
    /// Between two occasions at which an operator changes the members; 0 for none.
    pub change_every_us: u64,
    /// How long a sync takes at most, usually.
    pub sync_us: u64,
    /// A sync takes a hundred times as long.
    pub sync_tail: f64,
    /// Clocks run up to this share too fast or too slow.
    pub drift: f64,
    /// The number of clients.
    pub clients: usize,
    /// The number of commands of each client.
    pub commands: usize,
    /// The first client is a source: it numbers its commands, and starts again now and then.
    pub source: bool,
    /// How often a client ends its conversation, instead of asking, and begins another one.
    pub leaves: f64,
    /// Whether records that the log calls durable outlive a failure of power, so that positions count (G6).
    pub outlives_power: bool,
    /// The time after which nobody asks.
    pub ask_until_us: u64,
    /// The number of keys; few of them mean contention.
    pub keys: usize,
    /// The most bytes by which a value is longer than it must be.
    pub value_bytes: usize,
    /// The time between two commands of a client.
    pub think_us: u64,
    /// The share of reads.
    pub reads: f64,
    /// The share of conditional decisions.
    pub conditional: f64,
    /// If not 0, half of the commands go to keys that are deleted, and this share of those deletes them.
    pub deletes: f64,
    /// The share of writes that have an idempotency key.
    pub keyed: f64,
    /// The replica to which commands go first.
    pub routing: Routing,
    /// How long a client waits before it asks another replica.
    pub retry_us: u64,
    /// How long a client waits before it gives up.
    pub deadline_us: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Plan {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x706c_616e);
        let r = &mut random;
        // Half of the seeds with five replicas and more: several known faults need them.
        let n = if r.random_bool(0.5) { r.random_range(1..=4) } else { r.random_range(5..=9) };
        let bias = match r.random_range(0..10) {
            0..=2 => Bias::Fair,
            3 | 4 => Bias::CommitsLost,
            5 => Bias::FewHear,
            6 => Bias::CoordinatorsDie,
            7 => Bias::OwnRecordsLost,
            _ => Bias::Orphans,
        };
        let faults_us = r.random_range(200_000..3_000_000);
        let plan = Plan {
            seed,
            trace: false,
            quiet: false,
            n,
            pool: n,
            timing: timing(r),
            bias,
            unheard: r.random_range(0.3..0.85),
            deaf: None,
            bias_us: if bias == Bias::Fair { 0 } else { faults_us / 2 },
            faults_us,
            tune_every_us: 0,
            change_every_us: 0,
            loss: sometimes(r, 0.5, 0.001..0.2),
            duplication: sometimes(r, 0.5, 0.001..0.2),
            reordering: r.random_bool(0.6),
            tail: sometimes(r, 0.5, 0.001..0.05),
            delay_us: r.random_range(50..3_000),
            partition_every_us: every(r, 0.5, 50_000..1_500_000),
            reset_every_us: every(r, 0.5, 20_000..500_000),
            crash_every_us: every(r, 0.6, 50_000..1_500_000),
            pause_every_us: every(r, 0.4, 50_000..1_500_000),
            all_crash: sometimes(r, 0.3, 0.05..0.3),
            sync_us: r.random_range(20..8_000),
            sync_tail: sometimes(r, 0.5, 0.001..0.05),
            drift: sometimes(r, 0.5, 0.0..0.2),
            clients: r.random_range(1..=5),
            commands: r.random_range(3..=40),
            leaves: sometimes(r, 0.3, 0.02..0.2),
            outlives_power: r.random_bool(0.8),
            ask_until_us: u64::MAX,
            keys: [1, 2, 4, 30][r.random_range(0..4)],
            think_us: r.random_range(200..40_000),
            reads: sometimes(r, 0.5, 0.0..0.5),
            conditional: sometimes(r, 0.4, 0.0..0.4),
            routing: if r.random_bool(0.5) { Routing::Any } else { Routing::Home },
            retry_us: r.random_range(20_000..500_000),
            deadline_us: r.random_range(1_000_000..8_000_000),
            rescue: r.random_bool(0.25),
            source: r.random_bool(0.3),
            damage: sometimes(r, 0.15, 0.05..0.5),
            barrier_bytes: if r.random_bool(0.6) { r.random_range(20_000..400_000) } else { u64::MAX },
            write_fails: sometimes(r, 0.2, 0.0005..0.02),
            full_every_us: every(r, 0.2, 50_000..1_500_000),
            deletes: sometimes(r, 0.3, 0.02..0.4),
            hang_every_us: every(r, 0.2, 200_000..3_000_000),
            rot: sometimes(r, 0.3, 0.1..0.9),
            copy_every_us: every(r, 0.25, 20_000..400_000),
            between: sometimes(r, 0.3, 0.05..0.5),
            stops: sometimes(r, 0.4, 0.1..1.0),
            jump_every_us: every(r, 0.2, 50_000..1_000_000),
            wrong_every_us: every(r, 0.25, 5_000..200_000),
            value_bytes: if r.random_bool(0.2) { r.random_range(8..600) } else { 0 },
            keyed: sometimes(&mut SmallRng::seed_from_u64(seed ^ 0x6b65_7965), 0.3, 0.1..0.9),
        };
        // A source that stays away for longer than sessions live may not come back (S4).
        let plan = Plan { source: plan.source && plan.timing.session_idle_us > plan.faults_us, ..plan };
        plan.in_a_class(r).fixed().maybe_tuned().maybe_changing()
    }

    /// Some rare combinations have a share of the seeds.
    fn in_a_class(self, r: &mut SmallRng) -> Plan {
        let class = r.random_range(0.0..1.0);
        if class < QUIET_SHARE {
            self.without_faults()
        } else if class < QUIET_SHARE + RESTLESS_SHARE {
            self.restless(r)
        } else if class < QUIET_SHARE + RESTLESS_SHARE + BULKY_SHARE {
            self.bulky(r)
        } else if class >= 1.0 - WAITING_SHARE {
            self.waiting(r)
        } else if self.bias == Bias::Orphans {
            self.for_orphans()
        } else {
            self
        }
    }

    /// Replicas get other settings in some seeds. What a seed decides besides does not depend on that.
    fn maybe_tuned(self) -> Plan {
        let mut random = SmallRng::seed_from_u64(self.seed ^ 0x7475_6e65);
        let is_tuned = !self.quiet && random.random_bool(TUNED_SHARE);
        let tune_every_us = if is_tuned { random.random_range(20_000..500_000) } else { 0 };
        Plan { tune_every_us, ..self }
    }

    /// The members change in some seeds. What a seed decides besides does not depend on that.
    fn maybe_changing(self) -> Plan {
        let mut random = SmallRng::seed_from_u64(self.seed ^ 0x6368_616e_6765);
        if self.quiet || !random.random_bool(CHANGING_SHARE) {
            return self;
        }
        let change_every_us = random.random_range(50_000..600_000);
        self.changing(change_every_us)
    }

    /// The members change about so often. No disk is damaged besides, since those of members that are replaced are
    /// lost.
    pub fn changing(self, change_every_us: u64) -> Plan {
        let faults_us = self.faults_us.max(1_000_000);
        let n = self.n.min(CHANGING_MAX);
        let pool = n + SPARE;
        Plan {
            n,
            pool,
            change_every_us,
            faults_us,
            quiet: false,
            damage: 0.0,
            copy_every_us: 0,
            rot: 0.0,
            ..self
        }
    }

    /// Logs are cut and replicas crash again and again, under recoveries that never stop: what was carried
    /// over a cut is read back, and asked for.
    fn restless(self, random: &mut SmallRng) -> Plan {
        Plan {
            barrier_bytes: random.random_range(10_000..40_000),
            crash_every_us: random.random_range(30_000..200_000),
            timing: Timing { recover_us: 15_000, ..self.timing },
            faults_us: self.faults_us.max(1_000_000),
            clients: self.clients.max(3),
            commands: 40,
            keys: self.keys.min(2),
            routing: Routing::Any,
            copy_every_us: 0,
            ..self
        }
    }

    /// The state is larger than a piece of its snapshot, and changes while that is taken.
    fn bulky(self, random: &mut SmallRng) -> Plan {
        Plan {
            keys: 100,
            value_bytes: random.random_range(8_000..16_000),
            barrier_bytes: random.random_range(200_000..600_000),
            full_every_us: random.random_range(50_000..500_000),
            faults_us: self.faults_us.max(1_500_000),
            bias: Bias::Fair,
            bias_us: 0,
            clients: 5,
            commands: 40,
            reads: 0.0,
            conditional: 0.0,
            think_us: self.think_us.clamp(5_000, 20_000),
            ..self
        }
    }

    /// Instances of one coordinator, which is often away, are recovered while the others go on with theirs for long, so that
    /// a recovery waits for them (R6).
    fn waiting(self, random: &mut SmallRng) -> Plan {
        let timing = Timing {
            fast_path_us: 10_000,
            resend_us: 150_000,
            recover_us: 60_000,
            suspect_us: 12_000,
            gossip_us: 20_000,
            ..Timing::default()
        };
        // What a recovery waits for is accepted without its instance (R6a), or waits, too (R6c).
        let (n, recovers, accepts) = if random.random_bool(0.5) { (5, 0.5, 0.8) } else { (8, 0.9, 0.0) };
        let deaf = Deaf { orphan: random.random_range(0..n), recovers, accepts };
        Plan {
            n,
            quiet: false,
            bias: Bias::Orphans,
            unheard: 0.6,
            deaf: Some(deaf),
            bias_us: 800_000,
            faults_us: 800_000,
            timing,
            rescue: false,
            delay_us: 1_000,
            sync_us: 1_000,
            clients: 5,
            commands: 30,
            keys: 1,
            value_bytes: 0,
            think_us: 2_000,
            reads: 0.0,
            routing: Routing::Any,
            retry_us: 50_000,
            deadline_us: 3_000_000,
            ..self.without_faults()
        }
    }

    /// Nothing fails, and no timer of a replica or a client is so short that it could run out. A command that is done
    /// twice here, told as unknown, or late, shows a fault that retries hide elsewhere.
    pub fn without_faults(self) -> Plan {
        Plan {
            quiet: true,
            bias: Bias::Fair,
            bias_us: 0,
            loss: 0.0,
            duplication: 0.0,
            reordering: false,
            tail: 0.0,
            partition_every_us: 0,
            reset_every_us: 0,
            crash_every_us: 0,
            pause_every_us: 0,
            damage: 0.0,
            copy_every_us: 0,
            write_fails: 0.0,
            full_every_us: 0,
            hang_every_us: 0,
            rot: 0.0,
            between: 0.0,
            stops: 0.0,
            jump_every_us: 0,
            wrong_every_us: 0,
            keyed: 0.0,
            tune_every_us: 0,
            change_every_us: 0,
            sync_tail: 0.0,
            drift: 0.0,
            source: false,
            leaves: 0.0,
            timing: Timing { fast_path_us: self.timing.fast_path_us, ..Timing::default() },
            retry_us: 10_000_000,
            deadline_us: 60_000_000,
            ..self
        }
    }

    /// Contention and nothing else: every command writes one key, and every replica coordinates, for so many seconds.
    pub fn hot_key(seed: u64, seconds: u64) -> Plan {
        let until_us = seconds * 1_000_000;
        Plan {
            n: if seed.is_multiple_of(2) { 3 } else { 5 },
            timing: Timing::default(),
            bias: Bias::Fair,
            bias_us: 0,
            faults_us: until_us,
            loss: 0.0,
            duplication: 0.0,
            reordering: false,
            tail: 0.0,
            delay_us: 1_000,
            partition_every_us: 0,
            reset_every_us: 0,
            crash_every_us: 0,
            pause_every_us: 0,
            copy_every_us: 0,
            write_fails: 0.0,
            full_every_us: 0,
            hang_every_us: 0,
            between: 0.0,
            stops: 0.0,
            jump_every_us: 0,
            wrong_every_us: 0,
            tune_every_us: 0,
            change_every_us: 0,
            quiet: false,
            value_bytes: 0,
            sync_us: 20_000,
            sync_tail: 0.0,
            drift: 0.0,
            clients: 6,
            source: false,
            leaves: 0.0,
            commands: usize::MAX,
            ask_until_us: until_us,
            keys: 1,
            think_us: 1_000,
            reads: 0.0,
            conditional: 0.0,
            deletes: 0.0,
            keyed: 0.0,
            routing: Routing::Any,
            retry_us: 1_000_000,
            deadline_us: 10_000_000,
            ..Plan::of(seed)
        }
        .fixed()
    }

    /// Whoever there is is a member.
    fn fixed(self) -> Plan {
        Plan { pool: self.n, ..self }
    }

    /// Disks that hang and nothing else, for so many seconds, under clients that send commands to the homes of their
    /// keys and do not ask elsewhere unless they are told to.
    pub fn hung(seed: u64, seconds: u64) -> Plan {
        Plan {
            hang_every_us: 2_000_000,
            sync_us: 2_000,
            keys: 8,
            think_us: 20_000,
            routing: Routing::Home,
            retry_us: 20_000_000,
            deadline_us: 60_000_000,
            ..Plan::hot_key(seed, seconds)
        }
    }

    /// Replicas are often away for longer than the others remember, and the files of snapshots rot.
    pub fn rotten(seed: u64) -> Plan {
        let plan = Plan::of(seed);
        Plan {
            n: if seed.is_multiple_of(2) { 3 } else { 5 },
            quiet: false,
            barrier_bytes: 20_000,
            rot: 0.9,
            crash_every_us: 200_000,
            full_every_us: 0,
            damage: 0.0,
            copy_every_us: 0,
            change_every_us: 0,
            faults_us: plan.faults_us.max(1_500_000),
            commands: 40,
            clients: 5,
            ..plan
        }
        .fixed()
    }

    /// Enough replicas for a recovery to miss both coordinators, and commands that conflict.
    fn for_orphans(self) -> Plan {
        let timing = Timing { recover_us: self.timing.recover_us.min(100_000), ..self.timing };
        Plan {
            n: if self.n < 5 { self.n + 5 } else { self.n },
            keys: self.keys.min(2),
            clients: self.clients.max(3),
            routing: Routing::Any,
            think_us: self.think_us.min(5_000),
            crash_every_us: 0,
            write_fails: 0.0,
            timing,
            ..self
        }
    }
}

fn sometimes(random: &mut SmallRng, chance: f64, range: std::ops::Range<f64>) -> f64 {
    if random.random_bool(chance) { random.random_range(range) } else { 0.0 }
}

fn every(random: &mut SmallRng, chance: f64, range: std::ops::Range<u64>) -> u64 {
    if random.random_bool(chance) { random.random_range(range) } else { 0 }
}

/// In a third of the seeds every replica suspects every other one all the time; in some, sessions end while they are
/// in use.
fn timing(random: &mut SmallRng) -> Timing {
    let recover_us = match random.random_range(0..6) {
        0 | 1 => 15_000,
        2 | 3 => 100_000,
        _ => 500_000,
    };
    Timing {
        fast_path_us: random.random_range(2_000..20_000),
        resend_us: random.random_range(20_000..200_000),
        recover_us,
        suspect_us: random.random_range(10_000..100_000),
        gossip_us: random.random_range(5_000..50_000),
        source_idle_us: Timing::default().source_idle_us,
        keyed_idle_us: Timing::default().keyed_idle_us,
        session_idle_us: if random.random_bool(0.15) { 80_000 } else { 600_000_000 },
    }
}
