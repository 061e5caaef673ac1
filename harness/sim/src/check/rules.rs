//! The rules, by name: what the simulator says is broken. A number is that of the specification's invariant.
//!
//! What cannot be fenced is written in ARCHITECTURE.md, and where a rule leaves room for it, the rule says so.

/// Whoever is told that a request is taken finds it stored.
pub(super) const ACKNOWLEDGED_IS_STORED: &str = "1: an acknowledged request is stored";
/// Once nothing goes wrong any more, whatever is acknowledged ends, within a time that hangs on the plan.
pub(super) const ENDS_IN_TIME: &str = "1: every request ends in bounded time";
/// Once nothing goes wrong any more, whatever falls due is looked at within some minutes: its timer moves on, or goes.
pub(super) const DUE_ITEM_IS_HANDLED: &str = "1: a due item is handled";
/// What is open, and what somebody has not heard the end of, is found in the timer index.
pub(super) const HAS_A_TIMER: &str = "1: what is not settled has a timer";
/// A request goes from status to status as `lifecycle` says, by whoever may move it.
pub(super) const LEGAL_STEP: &str = "1: a request takes legal steps only";
/// The end stands as it was written first: status, number, result, error, all but who has heard of it.
pub(super) const END_STANDS: &str = "2: a terminal state never changes";
/// An end is told once it is written.
pub(super) const WRITTEN_BEFORE_DELIVERED: &str = "2: an end is written before it is delivered";
/// Only what somebody wanted to end is cancelled.
pub(super) const CANCELLED_ON_DEMAND: &str = "2: what is cancelled was asked to end";
/// The attempt's own attributes are written by the environment that holds the lease, or by the sweeper that takes it.
pub(super) const FENCED: &str = "3: a fenced attempt changes nothing";
/// Progress comes from the environment that holds the lease.
///
/// One frame to each client may have been on its way when its process was frozen, or slowed down: it arrives late, and
/// its client drops it.
pub(super) const SILENT_WITHOUT_LEASE: &str = "3: an attempt without its lease says nothing";
/// Without a fault nobody's lease is taken.
pub(super) const LEASE_IS_KEPT: &str = "3: no lease is lost without a fault";
/// The stored number never falls, and is one of the attempt that writes it.
pub(super) const STORED_SEQ_RISES: &str = "4: the stored number belongs to its attempt, and rises";
/// What one attempt says to one client rises, and so does what a client hears over one connection.
pub(super) const SEQ_RISES: &str = "4: numbers rise, and the terminal frame is the last";
/// The terminal frame repeats byte for byte, under the number that is stored.
pub(super) const ONE_TERMINAL_FRAME: &str = "4: the terminal frame is what is stored, each time the same";
/// Whoever listens over an open connection at the end has the terminal frame.
///
/// Who was found gone by a fault, though he was there, has to come back first, and is looked at again then.
pub(super) const END_IS_DELIVERED: &str = "5: every subscriber receives the terminal frame";
/// Nobody is taken off who is there and has not been told.
pub(super) const SUBSCRIBERS_STAY: &str = "5: a subscriber stays until it has the terminal frame";
/// One key is one request, from its queueing on until it expires.
pub(super) const ONE_REQUEST: &str = "6: an id is one request";
/// A claim runs its handler once.
pub(super) const RUNS_ONCE: &str = "6: a claim runs its handler once";
/// Nobody is told of a conflict, or that his request is not there, without a reason.
pub(super) const ID_IS_KNOWN: &str = "6: an id is known as what it was sent with";
/// A request belongs to whoever sent it, and its listeners are its user's.
pub(super) const ITS_USERS_ALONE: &str = "7: a request and its frames are its user's alone";
/// No more attempts than allowed.
pub(super) const ATTEMPTS_BOUNDED: &str = "8: attempts are bounded";
/// A dead letter tells of a request that has failed.
pub(super) const LETTER_AFTER_END: &str = "9: a dead letter follows its FAILED";
/// In the end, the letters are the requests that have failed. As a set: whoever dies between sending and noting it sends again.
pub(super) const LETTERS_ARE_FAILURES: &str = "9: the dead letters are the requests that failed for good";
/// What the stream gives up on is due to a fault.
pub(super) const STREAM_GIVES_UP_NOTHING: &str = "9: without a fault no stream record is given up";
/// An error about a message that has an id has it too.
pub(super) const ERRORS_NAME_REQUESTS: &str = "10: an error names its request";
/// What is stored reads as what it is.
pub(super) const ITEM_IS_SOUND: &str = "an item is sound";
/// What a snapshot says has been so.
pub(super) const SNAPSHOT_IS_TRUE: &str = "a snapshot tells what is stored";
/// Reports are pushed at most ten times a second, stored at most once.
pub(super) const PACED: &str = "15: reports are paced";
/// Without a fault a request costs what the design says.
pub(super) const WITHIN_BUDGET: &str = "15: a request costs what it should";
/// Nothing open expires, and what ends does after its time.
pub(super) const EXPIRES_ONLY_ENDED: &str = "20: only what has ended expires";
/// A holder that is asked to stop does.
pub(super) const CANCEL_TAKES_EFFECT: &str = "22: a running request whose end is asked for ends";
/// A request ends as its job says, unless something came between.
pub(super) const ENDS_AS_ITS_JOB: &str = "a request ends as its job says";
/// When all is settled nothing is left to do.
pub(super) const NOTHING_IS_LEFT: &str = "in the end nothing is left to do";
/// Who is connected is known, and who is not will be forgotten.
pub(super) const CONNECTIONS_ARE_TRUE: &str = "the connections that are known are there";
/// The stage's end ends all of it.
pub(super) const NO_TASK_IS_LEFT: &str = "no task is left";
