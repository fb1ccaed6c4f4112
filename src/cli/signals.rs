//! SIGINT, SIGTERM and SIGHUP: the first ends the watch in good order, a second ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;

use crate::cli::exit::{Exit, Signal};

/// What signals have come.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    cancel: CancellationToken,
    first: Arc<AtomicU8>,
}

impl Signals {
    /// Starts to listen. Where a signal cannot be caught it ends the program as it always did.
    pub(crate) fn listen() -> Self {
        let signals = Self {
            cancel: CancellationToken::new(),
            first: Arc::new(AtomicU8::new(0)),
        };
        let listener = signals.clone();
        tokio::spawn(async move {
            let Some(mut source) = Source::open() else {
                return;
            };
            loop {
                let exit = Exit::Signal(source.next().await);
                if listener.cancel.is_cancelled() {
                    // The record is on disk before every step, so nothing is lost by leaving now.
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

#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Source {
    fn open() -> Option<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Some(Self {
            interrupt: signal(SignalKind::interrupt()).ok()?,
            terminate: signal(SignalKind::terminate()).ok()?,
            hangup: signal(SignalKind::hangup()).ok()?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.hangup.recv() => Signal::Terminate,
        }
    }
}

#[cfg(not(unix))]
struct Source;

#[cfg(not(unix))]
impl Source {
    fn open() -> Option<Self> {
        Some(Self)
    }

    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Interrupt
    }
}
