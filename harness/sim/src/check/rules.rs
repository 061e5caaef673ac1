//! Texts of the rules. A violation contains the text of the broken rule. A leading number is the number of
//! the invariant in ARCHITECTURE.md.
//!
//! ARCHITECTURE.md lists the effects that cannot be fenced. If a rule tolerates one of these effects, the
//! rule's comment says so.

/// An acknowledged request is stored, and has had the acknowledged status.
pub(super) const ACKNOWLEDGED_IS_STORED: &str = "1: an acknowledged request is stored";
/// Once the faults have ended, every queued request becomes terminal, within a time that depends on the plan.
pub(super) const BECOMES_TERMINAL_IN_TIME: &str = "1: every request becomes terminal in bounded time";
/// Once the faults have ended, the sweeper handles each due item within minutes, by moving or removing the
/// item's timer.
pub(super) const DUE_ITEM_IS_HANDLED: &str = "1: the sweeper handles every due item";
/// A request is in the timer index while it is open, or while its terminal frame or dead letter is
/// undelivered.
pub(super) const PENDING_WORK_HAS_A_TIMER: &str = "1: a request with pending work has a timer";
/// A request changes its status only as `lifecycle` in `core` allows, and only by a function that may cause
/// that change.
pub(super) const LEGAL_STEP: &str = "1: a request takes only legal steps of the state machine";
/// After the terminal write, only the subscribers, the timer, the dead-letter flag and the redrive link of an
/// item change.
pub(super) const TERMINAL_STATE_STAYS: &str = "2: a terminal state never changes";
/// A terminal frame is pushed only after the terminal write.
pub(super) const WRITTEN_BEFORE_DELIVERED: &str = "2: the terminal write precedes the terminal frame";
/// A request is cancelled only if its user sent a cancel, or if the plan cancels on disconnect.
pub(super) const CANCEL_WAS_REQUESTED: &str = "2: only a request whose cancel was requested is cancelled";
/// Only the environment that holds the lease changes an attempt's attributes. Other functions change them
/// only together with a legal change of status.
pub(super) const FENCED: &str = "3: a fenced attempt (its lease is lost) changes nothing";
/// Only the environment that holds the lease pushes progress.
///
/// Exception: one frame to each client may have been in flight when its process was frozen or slowed down.
/// The frame arrives late, and the client drops it.
pub(super) const NO_PUSH_WITHOUT_LEASE: &str = "3: an attempt without its lease pushes nothing";
/// Without a fault, the sweeper reclaims no running request.
pub(super) const LEASE_IS_KEPT: &str = "3: no lease is lost without a fault";
/// The stored sequence number never falls, and its epoch is that of the attempt that writes it.
pub(super) const STORED_SEQ_RISES: &str = "4: the stored sequence number belongs to its attempt and rises";
/// Sequence numbers rise in the frames that one attempt pushes to a client, and in the frames that a client
/// receives over one connection.
pub(super) const SEQ_RISES: &str = "4: sequence numbers rise and the terminal frame is last";
/// The terminal frame matches the item, has the stored sequence number, and repeats byte for byte.
pub(super) const ONE_TERMINAL_FRAME: &str = "4: the terminal frame matches the item and repeats unchanged";
/// A client that is subscribed over an open connection at the end of the world has the terminal frame.
///
/// Exception: if a fault has made the connection appear gone, the client must subscribe again first.
pub(super) const TERMINAL_FRAME_IS_DELIVERED: &str = "5: every subscriber receives the terminal frame";
/// A subscriber whose connection is open is removed only after the terminal frame was delivered to it.
pub(super) const SUBSCRIBERS_STAY: &str = "5: a subscriber stays until it has the terminal frame";
/// A key names one request from its first write until it expires.
pub(super) const ONE_REQUEST: &str = "6: a client id is one request until it expires";
/// The handler starts at most once for each claim.
pub(super) const RUNS_ONCE: &str = "6: a claim runs its handler once";
/// NOT_FOUND is answered only for a request that is not stored, and CONFLICT only for an id that was sent
/// with two different payloads.
pub(super) const REFUSAL_HAS_A_CAUSE: &str = "6: NOT_FOUND and CONFLICT are answered only with a cause";
/// A request belongs to the user who sent it, and only connections of that user subscribe to it.
pub(super) const BELONGS_TO_ITS_USER: &str = "7: a request and its frames belong to its user alone";
/// A request never begins more attempts than it is allowed.
pub(super) const ATTEMPTS_BOUNDED: &str = "8: a request has at most its allowed attempts";
/// A dead letter is sent only for a FAILED request, and matches that request.
pub(super) const LETTER_MATCHES_A_FAILURE: &str = "9: a dead letter matches a FAILED request";
/// At the end of the world, the dead letters and the failed requests are the same set. The queue may contain
/// a letter twice: if a process dies between the send and the write that records the send, the letter is sent
/// again.
pub(super) const LETTERS_ARE_FAILURES: &str = "9: the dead letters are the requests that failed for good";
/// Without a fault, the event source mapping discards no stream record.
pub(super) const NO_RECORD_IS_DISCARDED: &str = "9: without a fault, no stream record is discarded";
/// An error frame that answers a message with an id carries that id.
pub(super) const ERRORS_NAME_REQUESTS: &str = "10: an error frame names its request";
/// A request's item has exactly the attributes that its status allows, and can be parsed.
pub(super) const ITEM_FITS_ITS_STATUS: &str = "an item's attributes fit its status";
/// A snapshot shows a status that the request has had, and a terminal snapshot matches the item.
pub(super) const SNAPSHOT_MATCHES: &str = "a snapshot matches the stored request";
/// Progress is pushed at most ten times a second, and stored at most once a second.
pub(super) const PACED: &str = "15: progress is pushed and stored at a limited rate";
/// Without a fault, a request costs no more writes, calls and frames than its budget.
pub(super) const WITHIN_BUDGET: &str = "15: a request stays within its cost budget";
/// An open request never expires, and a terminal one expires after its time to live.
pub(super) const ONLY_TERMINAL_EXPIRES: &str = "20: only terminal requests expire";
/// Without a fault, an attempt that is asked to stop ends within seconds of its next lease renewal.
pub(super) const CANCEL_TAKES_EFFECT: &str = "22: a running request ends soon after its cancel is requested";
/// A request gets the final status that its job leads to, unless a fault or a limit prevents it.
pub(super) const OUTCOME_FITS_THE_JOB: &str = "a request ends as its job requires";
/// At the end of the world, a terminal request has no timer, no subscriber and no unsent dead letter.
pub(super) const NO_WORK_IS_LEFT: &str = "a terminal request leaves no pending work";
/// Each open connection has an item in the connections table, and the item of a closed connection is deleted
/// or expires.
pub(super) const CONNECTIONS_MATCH: &str = "the connections table matches the open connections";
/// Shutting down the stage ends all of its tasks.
pub(super) const NO_TASK_OUTLIVES_THE_STAGE: &str = "no task outlives the stage";
