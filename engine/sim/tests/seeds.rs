//! A few seeds, so that every test run has some; `make sim` runs as many as you like.

use isonomy_protocol::mutant::{Mutant, is_noticed};
use isonomy_sim::contention::SPAN_US;
use isonomy_sim::plan::Plan;
use isonomy_sim::world::{Summary, run, run_plan};

#[test]
fn seeds_pass_and_give_the_same_events_each_time() {
    for seed in 0..16 {
        let first = run(seed);
        assert!(first.events > 0);
        if seed < 4 {
            assert_eq!(run(seed), first, "seed {seed}");
        }
    }
}

/// `make sim ARGS="--hot-key 3600"` does the same for an hour.
#[test]
fn commands_on_one_key_get_on_steadily() {
    let seconds = 30;
    for seed in [1, 2] {
        let Summary { contention, decisions, .. } = run_plan(Plan::hot_key(seed, seconds));
        assert!(contention.largest_component > 2, "the replicas are to contend: {contention:?}");
        assert!(contention.slowest_us < 1_000_000, "somebody starves: {contention:?}");
        let spans = seconds * 1_000_000 / SPAN_US;
        assert!(2 * contention.quietest_span * spans > decisions, "of {decisions}: {contention:?}");
    }
}

/// The faults that a handful of seeds brings to light, each by an assertion of the simulator. The
/// rare ones are left to the tests of their rules.
#[test]
fn a_core_that_breaks_a_rule_fails() {
    let mutants = [
        Mutant::DropAbal,
        Mutant::SmallFastQuorum,
        Mutant::ValidateForgets,
        Mutant::SpeakBeforeSync,
        Mutant::HoleIsEnd,
        Mutant::EagerCoordinator,
        Mutant::NoRestartMarks,
        Mutant::StreamsOutside,
        Mutant::ClockEndsStreams,
        Mutant::ReplyAtCommit,
        Mutant::NoRowEdge,
    ];
    for mutant in mutants {
        let is_caught = (0..40).any(|seed| {
            is_noticed(mutant, || {
                run(seed);
            })
        });
        assert!(is_caught, "{mutant:?} passes 40 seeds");
    }
}
