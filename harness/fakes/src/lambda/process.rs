//! One process of a function, from its start to its exit.

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

/// Maximum time to wait for the remaining output of an exited process. Only a grandchild outside of the
/// process group can keep the pipe open that long.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Signals all processes of a stage to end, and counts the processes that still run.
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

    /// Waits until all processes are signaled to end.
    pub(super) async fn closed(&self) {
        // This wait cannot fail, because `self` holds the sender.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Makes [`close`](Self::close) wait until the returned guard is dropped.
    pub(super) fn enter(&self) -> Alive {
        Alive::new(&self.alive)
    }

    /// Signals every process to end, including processes that start later.
    pub(super) fn begin_to_close(&self) {
        self.closing.send_replace(true);
    }

    /// Signals every process to end, and waits until no process is left.
    pub(super) async fn close(&self) {
        self.begin_to_close();
        self.alive.subscribe().wait_for(|alive| *alive == 0).await.expect("`self` holds the sender");
    }
}

/// Guard that counts one process, or one invocation in this process, as running until the guard is dropped.
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

/// A running process of a function. Dropping this handle kills the process.
#[derive(Debug)]
pub(super) struct Process {
    kill: oneshot::Sender<()>,
    exit: watch::Receiver<Option<String>>,
    stderr: Tail,
    group: Group,
}

impl Process {
    /// Starts `command`, and forwards the output to `log` under the function's name. Killing `caller` kills
    /// the process.
    ///
    /// # Errors
    /// [`io::Error`] if the program cannot be started.
    pub(super) fn spawn(
        mut command: Command,
        caller: &Caller,
        log: &Arc<dyn LogSink>,
        lifetimes: &Lifetimes,
    ) -> io::Result<Self> {
        // Use a separate process group. Ctrl-C in the terminal then reaches only the stage, which shuts down
        // its functions in order. A signal to the group also reaches the processes that the function has
        // started.
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
            if tokio::time::timeout(DRAIN_TIMEOUT, &mut output).await.is_err() {
                output.abort();
            }
            exited.send_replace(Some(reason));
        });
        Ok(Self { kill, exit, stderr, group: members })
    }

    /// Waits until the process exits, and returns the exit reason in Lambda's words.
    pub(super) async fn exited(&self) -> String {
        let mut exit = self.exit.clone();
        let reason = exit.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| describe(None))
    }

    /// Kills the process, and waits until the process has exited.
    pub(super) async fn kill(self) {
        let Self { kill, mut exit, .. } = self;
        drop(kill);
        let _ = exit.wait_for(Option::is_some).await;
    }

    /// Returns the process group: the function's process and its child processes.
    pub(super) fn group(&self) -> Group {
        self.group.clone()
    }

    /// Returns the last lines that the process wrote to its standard error.
    pub(super) fn last_stderr_lines(&self) -> String {
        self.stderr.text()
    }
}

/// Reason why a process ends.
enum EndCause {
    /// The process exited by itself.
    Exited(io::Result<ExitStatus>),
    Kill,
    Close,
}

/// Waits until `child` exits, or ends it on a kill or a shutdown. Returns the exit reason in Lambda's words.
async fn supervise(
    mut child: Child,
    group: &Group,
    dropped: oneshot::Receiver<()>,
    caller: Caller,
    mut closing: watch::Receiver<bool>,
    grace: Duration,
) -> String {
    let cause = tokio::select! {
        biased;
        status = child.wait() => EndCause::Exited(status),
        _ = dropped => EndCause::Kill,
        () = caller.killed() => EndCause::Kill,
        _ = closing.wait_for(|closing| *closing) => EndCause::Close,
    };
    let status = match cause {
        EndCause::Exited(status) => status,
        EndCause::Kill => end(&mut child, group).await,
        EndCause::Close => {
            group.terminate();
            match tokio::time::timeout(grace, child.wait()).await {
                Ok(status) => status,
                Err(_) => end(&mut child, group).await,
            }
        }
    };
    // Kill the processes that the function has started, as AWS does when it ends a sandbox.
    group.signal(Signal::KILL);
    group.forget();
    describe(status.ok())
}

async fn end(child: &mut Child, group: &Group) -> io::Result<ExitStatus> {
    group.signal(Signal::KILL);
    child.wait().await
}

/// The process group of an environment: the function's process and its child processes.
#[derive(Clone, Debug)]
pub(super) struct Group(Arc<Mutex<Members>>);

#[derive(Debug, Default)]
struct Members {
    leader: Option<Pid>,
    /// Whether SIGTERM was sent to the group. After the SIGTERM, the group is no longer frozen.
    ending: bool,
}

impl Group {
    fn of(child: &Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self(Arc::new(Mutex::new(Members { leader, ending: false })))
    }

    /// Freezes the group with SIGSTOP.
    ///
    /// If the stage itself is killed, the kernel ends the group: a stopped group without a parent gets SIGHUP
    /// and SIGCONT.
    pub(super) fn stop(&self) {
        let members = self.lock();
        if !members.ending {
            members.signal(Signal::STOP);
        }
    }

    /// Sends SIGTERM to the group, and SIGCONT so that a frozen group can handle the SIGTERM.
    fn terminate(&self) {
        let mut members = self.lock();
        members.ending = true;
        members.signal(Signal::TERM);
        members.signal(Signal::CONT);
    }

    /// Thaws the group with SIGCONT.
    pub(super) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.lock().signal(signal);
    }

    /// Forgets the group's process id, because the system may soon reuse the id.
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
            // The call fails only if the group has no process left; then there is nothing to signal.
            let _ = kill_process_group(leader, signal);
        }
    }
}

/// Returns the exit reason of a process in Lambda's words. `None` means that the exit status is unknown.
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
    fn exit_reason_of_a_process_has_the_wording_of_lambda() {
        let reason = |raw| describe(Some(ExitStatus::from_raw(raw)));
        assert_eq!(reason(127 << 8), "Runtime exited with error: exit status 127");
        assert_eq!(reason(0), "Runtime exited without providing a reason");
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
            assert_eq!(reason(signal.as_raw()), format!("Runtime exited with error: signal: {name}"));
        }
        let unnamed = Signal::XCPU.as_raw();
        assert_eq!(reason(unnamed), format!("Runtime exited with error: signal: signal {unnamed}"));
    }

    #[tokio::test]
    async fn terminated_process_group_is_not_frozen_again() {
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
    fn signal_to_a_group_without_a_process_has_no_effect() {
        Group(Arc::default()).signal(Signal::KILL);
    }
}
