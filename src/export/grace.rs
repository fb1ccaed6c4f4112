//! A signal while a call that starts something is on its way: its answer says what then stands in the
//! cloud, so it is waited for, but not for ever.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::event::{EventKind, Events};

/// How long a signal waits for the answer of a call that is on its way.
const GRACE_AFTER_SIGNAL: Duration = Duration::from_secs(10);

/// What `call` answers; `None` when `cancel` came and the answer did not follow within the grace. The signal is
/// acknowledged at once, on `events`.
pub(super) async fn answer_within_grace<T>(
    cancel: &CancellationToken,
    events: &Events,
    call: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(call);
    tokio::select! {
        biased;
        answer = &mut call => Some(answer),
        () = cancel.cancelled() => {
            events.emit(EventKind::AwaitingAnswer {
                limit: GRACE_AFTER_SIGNAL,
            });
            tokio::time::timeout(GRACE_AFTER_SIGNAL, call).await.ok()
        }
    }
}
