//! Proves to systemd's watchdog that the daemon does its work: that the API answers, and that the
//! threads that stand in for sleepers live. A daemon that hangs is then started anew, and adopts all.

use std::{io, path::Path, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::host::Host;

/// Tells systemd that all is well, several times within `span`, as long as it is. Never returns.
pub async fn attest(host: Arc<Host>, socket: &Path, span: Duration) {
    let pause = span / 4;
    loop {
        let proof = async {
            host.prove_presence().await;
            api_answers(socket).await
        };
        match tokio::time::timeout(span / 2, proof).await {
            Ok(Ok(())) => {
                if let Err(error) = sd_notify::notify(&[NotifyState::Watchdog]) {
                    tracing::warn!(%error, "cannot tell systemd that all is well");
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "the API does not answer"),
            Err(_) => tracing::error!("the API or a bridge's thread has not answered for {:?}", span / 2),
        }
        tokio::time::sleep(pause).await;
    }
}

/// Returns once the API has answered, whatever it said.
///
/// # Errors
///
/// When it cannot be reached, or what answers is no HTTP server.
pub async fn api_answers(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: dormouse\r\nConnection: close\r\n\r\n").await?;
    let mut start = [0; 8];
    stream.read_exact(&mut start).await?;
    if start == *b"HTTP/1.1" { Ok(()) } else { Err(io::Error::other("it does not speak HTTP")) }
}
