//! Settings that change while replicas run (law, section 4b): at any moment, and at each replica apart.

use super::{Event, World};
use isonomy_wire::tuning::{PathMode, Tuning, WINDOW_MAX};
use rand::Rng;
use rand::rngs::SmallRng;

impl World {
    /// A replica gets other settings. A process that starts later begins with those of the plan.
    pub(super) fn tune(&mut self) {
        let node = usize::from(self.faults.random_range(0..self.plan.n));
        let tuning = any_tuning(&mut self.faults, self.plan.rescue);
        let (is_slow_agreed, now) = (self.faults.random_bool(0.3), self.now);
        self.in_each_era(|world| {
            let Some(node) = world.nodes.get_mut(node) else { return };
            let time = node.time(now);
            if let Some(core) = &mut node.core {
                core.apply(time, tuning, is_slow_agreed);
            }
        });
        self.every(self.plan.tune_every_us, Event::Tune);
    }
}

fn any_tuning(random: &mut SmallRng, may_rescue: bool) -> Tuning {
    Tuning {
        fast_path_us: random.random_range(0..20_000),
        resend_us: random.random_range(20_000..200_000),
        recover_us: random.random_range(15_000..500_000),
        suspect_us: random.random_range(10_000..100_000),
        path: [PathMode::Auto, PathMode::Fast, PathMode::Slow][random.random_range(0..3)],
        guardrail_us: random.random_range(20_000..500_000),
        rescue: may_rescue && random.random_bool(0.5),
        window: random.random_range(1..=WINDOW_MAX),
    }
}
