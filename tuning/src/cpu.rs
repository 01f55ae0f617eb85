//! The CPU time that processes have taken: user and system time of all their threads, in microseconds.

use cpu_time::ProcessTime;
use std::fs;

/// The CPU time of this process so far.
pub fn process_cpu_us() -> u64 {
    ProcessTime::now().as_duration().as_micros() as u64
}

/// The CPU time of these processes so far, as a sum in steps of the kernel's clock tick (10 ms as a rule). There is
/// none if one of the processes is gone.
pub fn cpu_us_of(processes: &[u32]) -> Option<u64> {
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let ticks = processes.iter().map(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        ticks_of(&stat)
    });
    Some(ticks.sum::<Option<u64>>()? * 1_000_000 / ticks_per_second)
}

/// The user and system time in a process's stat line, whose second field is a name in brackets.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    Some(times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 120 0 1 0 31 11 0 0 20 0 5 0 99 1 1";
        assert_eq!(ticks_of(stat), Some(42));
        assert!(cpu_us_of(&[std::process::id()]).is_some());
        assert_eq!(cpu_us_of(&[u32::MAX]), None);
    }

    #[test]
    fn what_a_process_computes_counts() {
        let before = process_cpu_us();
        while process_cpu_us() < before + 100_000 {
            std::hint::black_box(before);
        }
        let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second();
        assert!(cpu_us_of(&[std::process::id()]).unwrap() + 2 * tick_us >= before + 100_000);
    }
}
