//! Each rule is broken on purpose, and its test must fail: a test that cannot is worth nothing.
//!
//! DropAbal, ReplyAtCommit and StrictGate are caught by stories, SetBackUnnoticed by the simulator, see
//! there.

use crate::{commit, durable, execute, forget, hung, learn, recover, seal, sessions, transfer, validate};
use isonomy_protocol::mutant::{Mutant, is_noticed};

/// The test of the rule that the mutant breaks.
fn test_of(mutant: Mutant) -> Option<fn()> {
    Some(match mutant {
        Mutant::SmallFastQuorum => commit::c3_fast_path_needs_equal_deps,
        Mutant::SlowWithoutQuorum => commit::c3_in_slow_mode_a_slow_quorum_of_answers_is_enough_and_needed,
        Mutant::EagerCoordinator => commit::c3_the_own_answer_counts_and_only_when_durable,
        Mutant::NopsLeaveIndex => commit::c2_what_became_a_nop_stays_known,
        Mutant::NoRowEdge => commit::c1_a_proposal_names_what_conflicts_and_its_whole_row,
        Mutant::ManySupporters | Mutant::SkipValidate => {
            recover::r3_5_what_may_have_been_fast_is_validated_by_all_who_reported
        }
        Mutant::EarlierAnswersCount => {
            recover::c5_r3_r5_an_answer_to_an_earlier_ballot_of_ones_own_does_not_count
        }
        Mutant::ValidateForgets => validate::r4_the_validator_remembers_and_names_the_instance_from_then_on,
        Mutant::LateValidate => validate::r4_a_late_validate_is_dropped,
        Mutant::EagerWaiting => validate::r6c_of_two_that_wait_for_each_other_one_gives_way,
        Mutant::DeafWaiting => validate::r6c_waiting_is_told_to_oneself_too,
        Mutant::SpeakBeforeSync => durable::d1_nothing_before_durable,
        Mutant::HoleIsEnd => durable::d6_a_log_that_has_lost_its_end_is_not_a_shorter_one,
        Mutant::NoRestartMarks => durable::d8_a_restarted_replica_names_what_it_may_have_forgotten,
        Mutant::SessionsOutside => sessions::s1_one_number_through_two_replicas_executes_once,
        Mutant::EarlyNumbers => sessions::s2_a_number_ahead_of_the_next_is_refused_the_same_everywhere,
        Mutant::FencedWrites => sessions::s5_whoever_attaches_fences_who_was_there,
        Mutant::ClockEndsSessions => sessions::s4_an_idle_session_ends_and_a_used_one_does_not,
        Mutant::NoFloorInDeps => forget::g1_deps_take_the_place_of_what_the_index_lost,
        Mutant::NoAfter => forget::r4_the_floor_is_told,
        Mutant::ForgottenIsNew | Mutant::ForgottenAccepts => {
            forget::g3_whoever_asks_about_what_is_forgotten_is_told_so
        }
        Mutant::CutBeforeFloor => forget::g1_the_log_is_cut_only_when_the_floor_is_durable,
        Mutant::BatchBeforeBegin => {
            forget::g1_a_begin_that_a_crash_left_unfinished_can_be_the_first_that_is_read
        }
        Mutant::BarrierPassesReads => forget::g4_a_barrier_and_all_others_name_each_other,
        Mutant::FrontierUnnamed => forget::g5_what_an_installed_snapshot_covers_is_named,
        Mutant::ReplayedFloorUnnamed => forget::section_7_a_restart_names_what_it_named_before,
        Mutant::CutBetweenBarriers | Mutant::CutAtE => forget::g4_the_floor_is_what_the_barrier_names,
        Mutant::AfterLostInAccept => forget::c4_after_stays_with_the_accepted_value,
        Mutant::AfterLostInReplay => forget::section_6_what_comes_after_waits_for_what_conflicts,
        Mutant::RowsInTurn => execute::section_6_inside_a_component_the_order_is_seq_then_row,
        Mutant::GateOfOne => execute::section_6_a_component_waits_for_the_after_of_each_of_its_members,
        Mutant::BarrierWithoutAfter => {
            execute::g4_the_frontier_of_a_barrier_is_what_its_component_names_and_is_after
        }
        Mutant::AfterIsNoOrder => validate::r4_what_comes_after_by_its_after_is_not_reported,
        Mutant::RefusalsWait | Mutant::HungProposes | Mutant::HungKeepsWaiters => {
            hung::d9_a_replica_whose_disk_hangs_sends_all_elsewhere_and_proposes_nothing
        }
        Mutant::StalledIsReached => {
            hung::d9_whoever_says_that_its_disk_hangs_counts_as_not_reached_for_a_while
        }
        Mutant::SameSourceForever => {
            transfer::g5_after_a_failure_another_source_is_asked_and_the_first_hears_of_it
        }
        Mutant::PastTheSeal => seal::section_9_nothing_executes_past_a_seal,
        Mutant::EpochUnchecked => seal::b17_a_message_of_another_epoch_is_refused_with_a_hint,
        Mutant::RecordUnchecked => seal::section_9_a_record_that_goes_back_is_refused,
        Mutant::SessionsLeftBehind => seal::section_9_sessions_come_along,
        Mutant::LearnerVotes => learn::section_9_a_learner_answers_no_question_and_begins_nothing,
        Mutant::EndlessHold => transfer::g5_who_does_not_get_on_is_not_waited_for,
        Mutant::DropAbal | Mutant::ReplyAtCommit | Mutant::StrictGate | Mutant::SetBackUnnoticed => {
            return None;
        }
    })
}

#[test]
fn every_broken_rule_is_noticed_by_its_test() {
    let survives = |mutant: &&Mutant| test_of(**mutant).is_some_and(|test| !is_noticed(**mutant, test));
    let survived: Vec<_> = Mutant::ALL.iter().filter(survives).collect();
    assert!(survived.is_empty(), "nobody noticed {survived:?}");
}
