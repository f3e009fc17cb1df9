//! SIGTERM and SIGINT: the first one stops the process cleanly, the second one at once.

use std::io;
use std::sync::mpsc::Sender;

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use super::ExitCode;

/// Tells `events` of the first signal, as what `event` makes of its name.
///
/// # Errors
/// When the system does not let signals be handled.
pub(super) fn listen<E: Send + 'static>(
    runtime: &Handle,
    events: Sender<E>,
    event: fn(&'static str) -> E,
) -> io::Result<()> {
    let within = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(within);
    runtime.spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let first = next().await;
        // A receiver that is gone has stopped already.
        drop(events.send(event(first)));
        let second = next().await;
        tracing::warn!(
            signal = second,
            "second signal: ending at once, without a commit"
        );
        end_at_once();
    });
    Ok(())
}

#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "whoever asks twice wants no clean-up; an open transaction is aborted by its timeout"
)]
fn end_at_once() -> ! {
    std::process::exit(i32::from(ExitCode::Failure.code()))
}
