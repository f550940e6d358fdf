//! Random lives of histories, beside a model.

use crate::world::{Trial, World};
use std::sync::Arc;
use std::time::Duration;
use testkit::source::{Failing, Memory, Op, Slow};

fn live(trial: Trial, steps: usize) -> World {
    let seed = trial.seed;
    let mut world = World::new(trial);
    for step in 0..steps {
        world.step().unwrap_or_else(|e| panic!("seed {seed}, step {step}: {e}"));
        if step % 200 == 0 {
            world.whole();
        }
    }
    world.whole();
    world
}

#[test]
fn random_lives() {
    let mut seed = 0;
    for cache_bytes in [0, 40 << 10, 1 << 20] {
        for interval in [512, 4096] {
            for below in [None, Some(90_000), Some(400_000)] {
                seed += 1;
                live(Trial { below, ..Trial::new(seed, interval, cache_bytes) }, 600).end();
            }
        }
    }
}

#[test]
fn with_maps_that_take_their_time() {
    let maps = Arc::new(Slow::new(Arc::new(Memory::new(0)), Duration::ZERO));
    live(Trial { maps, ..Trial::new(99, 512, 0) }, 500).end();
}

#[test]
fn a_thousand_versions() {
    let trial =
        Trial { most_versions: 1000, len: 70_000, below: Some(50_000), ..Trial::new(1, 512, 100 << 10) };
    let mut world = World::new(trial);
    let mut steps = 0;
    while world.frozen.len() < 1000 {
        steps += 1;
        world.step().unwrap_or_else(|e| panic!("step {steps}: {e}"));
    }
    world.whole();
    for _ in 0..100 {
        world.diff().unwrap();
    }
    world.end();
}

/// Where maps are stored fails, where data is stored fails, or both: errors, never other bytes.
#[test]
fn with_sources_that_fail() {
    for seed in 0..12 {
        let failing = || Arc::new(Failing::new(Arc::new(Memory::new(0))));
        let (data, maps) = (failing(), failing());
        let below = (seed % 2 == 0).then_some(100_000);
        let trial = Trial {
            data: Arc::clone(&data) as _,
            maps: Arc::clone(&maps) as _,
            below,
            ..Trial::new(seed, 512, 0)
        };
        let mut world = World::new(trial);
        let both = [Arc::clone(&data), Arc::clone(&maps)];
        world.mend = Some(Box::new(move || both.iter().for_each(|source| source.mend())));
        for step in 0..500 {
            let ops = [Op::Read, Op::Write, Op::Zero, Op::SetLen];
            if seed % 3 != 1 {
                maps.fail_at_random(seed * 1000 + step, 8, &ops);
            }
            if seed % 3 != 2 {
                data.fail_at_random(seed * 2000 + step, 15, &ops);
            }
            // A failure is none of the test's business; other bytes are.
            let _ = world.step();
            if step % 100 == 99 {
                maps.mend();
                data.mend();
                world.whole();
            }
        }
        maps.mend();
        data.mend();
        world.end();
        assert!(maps.failed() + data.failed() > 20);
    }
}
