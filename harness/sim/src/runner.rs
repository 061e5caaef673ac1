//! Runs many worlds, on several threads.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::pool;
use super::report::{FinishedWorld, Report};

/// Interval at which `go_on` is called while no world finishes.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// Returns the machine's real time, from which a report computes the speed of simulation.
#[expect(clippy::disallowed_methods, reason = "measures how fast worlds run; no world reads this time")]
pub(super) fn real_time() -> Instant {
    Instant::now()
}

/// Runs the worlds of the seeds in order, on this many threads, while `go_on` returns true. `world` runs one
/// seed's world. A world that has begun is finished.
pub(super) fn run(
    seeds: Range<u64>,
    threads: usize,
    world: impl Fn(u64) -> FinishedWorld + Sync,
    mut go_on: impl FnMut(&Report) -> bool,
) -> Report {
    let begun = real_time();
    let mut report = Report::new(seeds.clone());
    let (next, stopped) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let work = |finished: mpsc::Sender<FinishedWorld>| {
        while !stopped.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) || finished.send(world(seed)).is_err() {
                break;
            }
        }
    };
    let work = &work;
    thread::scope(|scope| {
        let (finished, worlds) = mpsc::channel();
        for number in 0..threads {
            let finished = finished.clone();
            pool::spawn(scope, format!("world runner {number}"), move || work(finished));
        }
        drop(finished);
        loop {
            match worlds.recv_timeout(ASK_INTERVAL) {
                Ok(world) => report.add(world),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            report.took = begun.elapsed();
            if !go_on(&report) {
                stopped.store(true, Ordering::Relaxed);
            }
        }
    });
    report
}
