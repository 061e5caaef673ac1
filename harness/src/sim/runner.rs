//! Many worlds, a thread for each core.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::check::Violation;
use super::report::Report;
use super::simulator::Sim;
use super::tally::Tally;

/// The embedded database parses expressions by recursion, and so do debug builds' futures poll each other.
const STACK_BYTES: usize = 16 * 1024 * 1024;
/// How often is asked whether to go on, where no world ends for long.
const TURN: Duration = Duration::from_millis(100);

/// What is kept of a world.
pub(super) struct Ended {
    pub(super) seed: u64,
    pub(super) violations: Vec<Violation>,
    pub(super) lasted: Duration,
    pub(super) tally: Tally,
}

/// The machine's time: a report says how fast worlds are.
#[expect(clippy::disallowed_methods, reason = "this is about worlds, and in none of them")]
pub(super) fn real_time() -> Instant {
    Instant::now()
}

pub(super) fn run(sim: &Sim, mut go_on: impl FnMut(&Report) -> bool) -> Report {
    let begun = real_time();
    let mut report = Report::new(sim.seeds.clone());
    let (next, stopped) = (AtomicU64::new(sim.seeds.start), AtomicBool::new(false));
    let work = |told: mpsc::Sender<Ended>| {
        while !stopped.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !sim.seeds.contains(&seed) {
                break;
            }
            let world = sim.run_seed(seed);
            let ended =
                Ended { seed, lasted: world.lasted, tally: world.tally(), violations: world.violations };
            if told.send(ended).is_err() {
                break;
            }
        }
    };
    thread::scope(|scope| {
        let (told, ended) = mpsc::channel();
        for number in 0..sim.threads {
            let thread = thread::Builder::new().name(format!("worlds {number}")).stack_size(STACK_BYTES);
            let told = told.clone();
            thread.spawn_scoped(scope, || work(told)).expect("the machine has room for another thread");
        }
        drop(told);
        loop {
            match ended.recv_timeout(TURN) {
                Ok(ended) => report.add(ended),
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

/// Does `work` for each item on so many threads, all begun at once.
pub(super) fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let work = &work;
    thread::scope(|scope| {
        let threads = items.iter().map(|item| {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, move || work(item)).expect("the machine has room for another thread")
        });
        let threads: Vec<_> = threads.collect();
        let done = threads.into_iter().map(|thread| thread.join().expect("a world's panics are caught"));
        done.collect()
    })
}
