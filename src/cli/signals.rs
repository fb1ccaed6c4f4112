//! SIGINT, SIGTERM and SIGHUP: the first ends the watch in good order, a second ends the program once
//! it has said where to go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cli::exit::{Exit, Signal};
use crate::cli::partial::Partials;
use crate::cli::printer::Printer;

/// How long the last words may take: a pipe that nobody empties must not hold the end up.
const LEAVE: Duration = Duration::from_secs(1);

/// What signals have come.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    cancel: CancellationToken,
    first: Arc<AtomicU8>,
}

impl Signals {
    /// Starts to listen. A signal that cannot be caught does what it always did.
    pub(crate) fn listen(printer: Printer, partials: Partials) -> Self {
        let signals = Self {
            cancel: CancellationToken::new(),
            first: Arc::new(AtomicU8::new(0)),
        };
        let listener = signals.clone();
        let mut source = Source::open();
        tokio::spawn(async move {
            loop {
                let exit = Exit::Signal(source.next().await);
                if listener.cancel.is_cancelled() {
                    // The record is on disk before every step, so nothing is lost by leaving now.
                    let (printer, partials) = (printer.clone(), partials.clone());
                    let words = tokio::task::spawn_blocking(move || partials.take_leave(&printer));
                    drop(tokio::time::timeout(LEAVE, words).await);
                    std::process::exit(i32::from(exit.code()));
                }
                listener.first.store(exit.code(), Ordering::Relaxed);
                listener.cancel.cancel();
            }
        });
        signals
    }

    /// Is cancelled by the first signal.
    pub(crate) fn cancel(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// The first signal that came.
    pub(crate) fn received(&self) -> Option<Signal> {
        match self.first.load(Ordering::Relaxed) {
            0 => None,
            130 => Some(Signal::Interrupt),
            _ => Some(Signal::Terminate),
        }
    }
}

/// The signals that are listened to. One that this process was started to ignore, as `nohup` and the
/// background jobs of plain shells do, stays ignored.
#[cfg(unix)]
struct Source {
    interrupt: Option<tokio::signal::unix::Signal>,
    terminate: Option<tokio::signal::unix::Signal>,
    hangup: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Source {
    fn open() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let ignored = ignored_signals();
        let is_ignored = |number: i32| {
            u32::try_from(number - 1)
                .ok()
                .and_then(|bit| ignored.checked_shr(bit))
                .is_some_and(|mask| mask & 1 == 1)
        };
        let open = |kind: SignalKind| {
            let is_wanted = !is_ignored(kind.as_raw_value());
            is_wanted.then(|| signal(kind).ok()).flatten()
        };
        // Where a limit on file sizes is met, this signal would end the program in the middle of a
        // write. With any handler in place the write fails instead, and says why. The handler stays
        // when its receiver goes.
        drop(open(SignalKind::from_raw(
            rustix::process::Signal::XFSZ.as_raw(),
        )));
        Self {
            interrupt: open(SignalKind::interrupt()),
            terminate: open(SignalKind::terminate()),
            hangup: open(SignalKind::hangup()),
        }
    }

    async fn next(&mut self) -> Signal {
        async fn received(source: &mut Option<tokio::signal::unix::Signal>) {
            let is_heard = match source {
                Some(source) => source.recv().await.is_some(),
                None => false,
            };
            if !is_heard {
                std::future::pending::<()>().await;
            }
        }
        tokio::select! {
            () = received(&mut self.interrupt) => Signal::Interrupt,
            () = received(&mut self.terminate) => Signal::Terminate,
            () = received(&mut self.hangup) => Signal::Terminate,
        }
    }
}

/// The signals that this process was started to ignore, as a mask in which signal 1 is the lowest bit.
/// Only Linux tells it in a file; elsewhere, where asking takes a call that Rust holds for unsafe, none
/// is taken for ignored, and `nohup` does not keep a closing terminal from ending the watch.
#[cfg(unix)]
fn ignored_signals() -> u128 {
    if cfg!(target_os = "linux") {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        parse_ignored(&status)
    } else {
        0
    }
}

/// The mask in the line `SigIgn:` of a process's status.
#[cfg(unix)]
fn parse_ignored(status: &str) -> u128 {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u128::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0)
}

/// The events of a console. The last two leave a few seconds before the system ends the process.
#[cfg(windows)]
struct Source {
    interrupt: Option<tokio::signal::windows::CtrlC>,
    pause: Option<tokio::signal::windows::CtrlBreak>,
    close: Option<tokio::signal::windows::CtrlClose>,
    shutdown: Option<tokio::signal::windows::CtrlShutdown>,
}

#[cfg(windows)]
impl Source {
    fn open() -> Self {
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
        Self {
            interrupt: ctrl_c().ok(),
            pause: ctrl_break().ok(),
            close: ctrl_close().ok(),
            shutdown: ctrl_shutdown().ok(),
        }
    }

    async fn next(&mut self) -> Signal {
        // The next event of `$source`, or never.
        macro_rules! received {
            ($source:expr) => {
                async {
                    let is_heard = match &mut $source {
                        Some(source) => source.recv().await.is_some(),
                        None => false,
                    };
                    if !is_heard {
                        std::future::pending::<()>().await;
                    }
                }
            };
        }
        tokio::select! {
            () = received!(self.interrupt) => Signal::Interrupt,
            () = received!(self.pause) => Signal::Interrupt,
            () = received!(self.close) => Signal::Terminate,
            () = received!(self.shutdown) => Signal::Terminate,
        }
    }
}

#[cfg(not(any(unix, windows)))]
struct Source;

#[cfg(not(any(unix, windows)))]
impl Source {
    fn open() -> Self {
        Self
    }

    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Interrupt
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read_from_a_process_status() {
        let status = |mask| format!("Name:\tx\nSigBlk:\tff\nSigIgn:\t{mask}\nSigCgt:\tff\n");
        assert_eq!(parse_ignored(&status("0000000000000003")), 0b11);
        assert_eq!(parse_ignored(&status("0000000000001000")), 1 << 12);
        assert_eq!(parse_ignored(&status("")), 0);
        assert_eq!(parse_ignored(&status("no mask")), 0);
        assert_eq!(parse_ignored(""), 0);
    }
}
