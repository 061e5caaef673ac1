//! One process of a function, from its start to its end.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use super::log::LogSink;
use super::output::{Tail, forward};
use crate::faults::Caller;
use crate::watch;

/// How long the rest of a dead process's output is waited for. Only a grandchild that has left the process
/// group can hold the pipe open that long.
const DRAIN: Duration = Duration::from_millis(500);

/// How processes are told to end, and how it is known that all have.
#[derive(Clone, Debug)]
pub(super) struct Lifetimes {
    closing: watch::Sender<bool>,
    alive: watch::Sender<usize>,
    grace: Duration,
}

impl Lifetimes {
    pub(super) fn new(grace: Duration) -> Self {
        Self { closing: watch::Sender::new(false), alive: watch::Sender::new(0), grace }
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Waits until everything is to end.
    pub(super) async fn closed(&self) {
        // The sender lives in self.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Has [`close`](Self::close) wait until this is dropped.
    pub(super) fn enter(&self) -> Alive {
        Alive::new(&self.alive)
    }

    /// Has every process end, and those started from now on as well.
    pub(super) fn begin_to_close(&self) {
        self.closing.send_replace(true);
    }

    /// The same, and waits until none is left.
    pub(super) async fn close(&self) {
        self.begin_to_close();
        self.alive.subscribe().wait_for(|alive| *alive == 0).await.expect("the sender lives in self");
    }
}

/// Counts a process, or an invocation in this one, until it is dropped.
#[derive(Debug)]
pub(super) struct Alive(watch::Sender<usize>);

impl Alive {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|alive| *alive += 1);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|alive| *alive -= 1);
    }
}

/// A running process, which is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    kill: oneshot::Sender<()>,
    exit: watch::Receiver<Option<String>>,
    stderr: Tail,
    group: Group,
}

impl Process {
    /// Starts `command` and forwards its output under the function's name. It dies when `caller` is killed.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(super) fn spawn(
        mut command: Command,
        caller: &Caller,
        log: &Arc<dyn LogSink>,
        lifetimes: &Lifetimes,
    ) -> io::Result<Self> {
        // A group of its own: Ctrl-C in the terminal reaches the stage alone, which then ends its functions
        // in order, and a signal to the group reaches what the function has started.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let alive = lifetimes.enter();

        let stderr = Tail::default();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (name, sink, tail) = (caller.function().to_owned(), Arc::clone(log), stderr.clone());
        let output = async move {
            let out = async {
                if let Some(out) = out {
                    forward(out, &name, &*sink, None).await;
                }
            };
            let err = async {
                if let Some(err) = err {
                    forward(err, &name, &*sink, Some(tail)).await;
                }
            };
            tokio::join!(out, err);
        };

        let (kill, killed) = oneshot::channel();
        let (exited, exit) = watch::channel(None);
        let closing = lifetimes.closing.subscribe();
        let grace = lifetimes.grace;
        let group = Group::of(&child);
        let members = group.clone();
        let caller = caller.clone();
        let mut output = tokio::spawn(output);
        tokio::spawn(async move {
            let _alive = alive;
            let reason = supervise(child, &group, killed, caller, closing, grace).await;
            if tokio::time::timeout(DRAIN, &mut output).await.is_err() {
                output.abort();
            }
            exited.send_replace(Some(reason));
        });
        Ok(Self { kill, exit, stderr, group: members })
    }

    /// Waits for the end of the process and says how it ended.
    pub(super) async fn exited(&self) -> String {
        let mut exit = self.exit.clone();
        let reason = exit.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| describe(None))
    }

    /// Kills the process and waits until it is gone.
    pub(super) async fn kill(self) {
        let Self { kill, mut exit, .. } = self;
        drop(kill);
        let _ = exit.wait_for(Option::is_some).await;
    }

    /// The process and those that it has started.
    pub(super) fn group(&self) -> Group {
        self.group.clone()
    }

    /// What the process wrote last to its standard error.
    pub(super) fn last_words(&self) -> String {
        self.stderr.text()
    }
}

/// What ends a process.
enum Asked {
    /// Nobody: it ended by itself.
    Nothing(io::Result<ExitStatus>),
    Kill,
    Close,
}

/// Waits for the end of `child`, and brings it about when asked to.
async fn supervise(
    mut child: Child,
    group: &Group,
    dropped: oneshot::Receiver<()>,
    caller: Caller,
    mut closing: watch::Receiver<bool>,
    grace: Duration,
) -> String {
    let asked = tokio::select! {
        biased;
        status = child.wait() => Asked::Nothing(status),
        _ = dropped => Asked::Kill,
        () = caller.killed() => Asked::Kill,
        _ = closing.wait_for(|closing| *closing) => Asked::Close,
    };
    let status = match asked {
        Asked::Nothing(status) => status,
        Asked::Kill => end(&mut child, group).await,
        Asked::Close => {
            group.terminate();
            match tokio::time::timeout(grace, child.wait()).await {
                Ok(status) => status,
                Err(_) => end(&mut child, group).await,
            }
        }
    };
    // What the function has started goes with it, as with its sandbox.
    group.signal(Signal::KILL);
    group.forget();
    describe(status.ok())
}

async fn end(child: &mut Child, group: &Group) -> io::Result<ExitStatus> {
    group.signal(Signal::KILL);
    child.wait().await
}

/// The processes of an environment: the function's and those that it has started.
#[derive(Clone, Debug)]
pub(super) struct Group(Arc<Mutex<Members>>);

#[derive(Debug, Default)]
struct Members {
    leader: Option<Pid>,
    /// Whether they were told to end: from then on they are not stopped any more.
    ending: bool,
}

impl Group {
    fn of(child: &Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self(Arc::new(Mutex::new(Members { leader, ending: false })))
    }

    /// Has them make no progress. Should the stage itself be killed, the kernel ends them: a group that is stopped
    /// and left behind gets SIGHUP and SIGCONT.
    pub(super) fn stop(&self) {
        let members = self.lock();
        if !members.ending {
            members.signal(Signal::STOP);
        }
    }

    /// Tells them to end, for which they are given the time to go on, frozen or not.
    fn terminate(&self) {
        let mut members = self.lock();
        members.ending = true;
        members.signal(Signal::TERM);
        members.signal(Signal::CONT);
    }

    /// Has them go on.
    pub(super) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.lock().signal(signal);
    }

    /// Its number may be another's soon.
    fn forget(&self) {
        self.lock().leader = None;
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            // It fails only when nobody of the group is left, which is what it is for.
            let _ = kill_process_group(leader, signal);
        }
    }
}

/// The end of a process in Lambda's words.
fn describe(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) if code != 0 => format!("Runtime exited with error: exit status {code}"),
        Some((None, Some(signal))) => format!("Runtime exited with error: signal: {}", signal_name(signal)),
        Some(_) | None => "Runtime exited without providing a reason".to_owned(),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match Signal::from_named_raw(signal) {
        Some(Signal::HUP) => "hangup",
        Some(Signal::INT) => "interrupt",
        Some(Signal::QUIT) => "quit",
        Some(Signal::ILL) => "illegal instruction",
        Some(Signal::ABORT) => "aborted",
        Some(Signal::BUS) => "bus error",
        Some(Signal::FPE) => "floating point exception",
        Some(Signal::KILL) => "killed",
        Some(Signal::SEGV) => "segmentation fault",
        Some(Signal::PIPE) => "broken pipe",
        Some(Signal::TERM) => "terminated",
        Some(_) | None => return format!("signal {signal}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crash_row_an_end_is_told_in_lambdas_words() {
        let told = |raw| describe(Some(ExitStatus::from_raw(raw)));
        assert_eq!(told(127 << 8), "Runtime exited with error: exit status 127");
        assert_eq!(told(0), "Runtime exited without providing a reason");
        assert_eq!(describe(None), "Runtime exited without providing a reason");
        for (signal, name) in [
            (Signal::HUP, "hangup"),
            (Signal::INT, "interrupt"),
            (Signal::QUIT, "quit"),
            (Signal::ILL, "illegal instruction"),
            (Signal::ABORT, "aborted"),
            (Signal::BUS, "bus error"),
            (Signal::FPE, "floating point exception"),
            (Signal::KILL, "killed"),
            (Signal::SEGV, "segmentation fault"),
            (Signal::PIPE, "broken pipe"),
            (Signal::TERM, "terminated"),
        ] {
            assert_eq!(told(signal.as_raw()), format!("Runtime exited with error: signal: {name}"));
        }
        let unnamed = Signal::XCPU.as_raw();
        assert_eq!(told(unnamed), format!("Runtime exited with error: signal: signal {unnamed}"));
    }

    #[tokio::test]
    async fn lifecycle_row_who_is_told_to_end_is_not_frozen_any_more() {
        let script = "trap 'sleep 0.1; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut ready = [0; 6];
        let mut output = child.stdout.take().unwrap();
        tokio::io::AsyncReadExt::read_exact(&mut output, &mut ready).await.unwrap();
        let group = Group::of(&child);
        group.stop();
        group.terminate();
        group.stop();
        let ended = tokio::time::timeout(Duration::from_secs(20), child.wait()).await;
        assert_eq!(ended.unwrap().unwrap().code(), Some(3));
    }

    #[test]
    fn no_process_means_nothing_to_signal() {
        Group(Arc::default()).signal(Signal::KILL);
    }
}
