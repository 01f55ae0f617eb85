//! The cores of the host, and where threads run.

use core_affinity::CoreId;

/// The numbers of the cores that this process may run on. The list is empty if the system does not tell them.
pub fn usable() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.into_iter().map(|core| core.id).collect()
}

/// How many threads run at once: at least one.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The first of these cores that this process may not run on.
pub fn first_unusable(wanted: &[usize]) -> Option<usize> {
    let usable = usable();
    wanted.iter().copied().find(|core| !usable.contains(core))
}

/// Binds this thread to a core. A system that refuses leaves the thread where it was.
pub fn pin(core: usize) {
    core_affinity::set_for_current(CoreId { id: core });
}

/// The core for this turn, if there is any: cores are given out one after the other, and again from the first.
pub fn in_turn(cores: &[usize], turn: usize) -> Option<usize> {
    cores.get(turn % cores.len().max(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_pinned_may_use_its_core_alone() {
        let last = *usable().last().unwrap();
        let pinned = std::thread::spawn(move || {
            pin(last);
            (usable(), count())
        });
        assert_eq!(pinned.join().unwrap(), (vec![last], 1));
    }

    #[test]
    fn a_core_that_may_not_be_used_is_named() {
        assert_eq!(first_unusable(&usable()), None);
        assert_eq!(first_unusable(&[usable()[0], 9999, 10_000]), Some(9999));
    }

    #[test]
    fn cores_are_given_out_in_turn() {
        assert_eq!([0, 1, 2, 3].map(|turn| in_turn(&[4, 7], turn)), [Some(4), Some(7), Some(4), Some(7)]);
        assert_eq!(in_turn(&[], 3), None);
    }
}
