//! A few seeds, so that every test run has some; `make sim` runs as many as you like.

use isonomy_protocol::mutant::{Mutant, is_noticed};
use isonomy_sim::world::run;

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

/// The faults that a handful of seeds brings to light, each by an assertion of the simulator. The
/// rare ones are left to the tests of their rules.
#[test]
fn a_core_that_breaks_a_rule_fails() {
    let mutants = [
        Mutant::DropAbal,
        Mutant::SmallFastQuorum,
        Mutant::ValidateForgets,
        Mutant::SpeakBeforeSync,
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
