//! The socket: bound, guarded, served, and given up in good order.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::unistd::{Group, chown};
use tokio::net::{UnixListener, UnixStream};

use super::{Peer, router};
use crate::host::Host;

/// How long requests that are under way may still take when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// A bound socket that is not served yet: clients that connect wait.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process serves it.
    #[error("{} is served by another dormoused: stop that one, or give this one a socket of its own", .0.display())]
    InUse(PathBuf),
    /// Something else is where the socket should be.
    #[error("{} is there and is no socket: move it away", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The socket or its folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Server {
    /// Binds the socket: mode 0660, of `group` if there is such a group.
    ///
    /// # Errors
    ///
    /// When it is in use or cannot be made. A socket that nobody serves is replaced.
    pub async fn bind(path: &Path, group: &str) -> Result<Self, ServeError> {
        let io = |action| {
            let path = path.to_path_buf();
            move |source| ServeError::Io { action, path, source }
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io("make the folder of"))?;
        }
        make_room(path).await?;
        let listener = UnixListener::bind(path).map_err(io("bind"))?;
        // Connecting takes write permission, which the usual umask gives to nobody else until here.
        if let Ok(Some(group)) = Group::from_name(group) {
            chown(path, None, Some(group.gid)).map_err(|e| io("change the group of")(e.into()))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(io("set the mode of"))?;
        Ok(Self { listener, path: path.into() })
    }

    /// Serves until `stop` is ready; then ends streams, and waits for requests for a short while.
    ///
    /// # Errors
    ///
    /// When the socket breaks.
    pub async fn serve(self, host: Arc<Host>, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { listener, path } = self;
        let (stopped, mut stopping) = tokio::sync::watch::channel(false);
        let service = router(Arc::clone(&host)).into_make_service_with_connect_info::<Peer>();
        let until = async move {
            // An error says that the sender is gone, which is the end too.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let serving = axum::serve(listener, service).with_graceful_shutdown(until);
        let mut serving = tokio::spawn(async move { serving.await });
        let source = tokio::select! {
            () = stop => {
                host.events().close();
                let _ = stopped.send(true);
                let ended = tokio::time::timeout(FAREWELL, &mut serving).await;
                if ended.is_err() {
                    serving.abort();
                }
                None
            }
            ended = &mut serving => ended.map_err(io::Error::other).flatten().err(),
        };
        let _ = fs::remove_file(&path);
        source.map_or(Ok(()), |source| Err(ServeError::Io { action: "serve", path, source }))
    }
}

/// Removes a socket that a daemon left behind.
async fn make_room(path: &Path) -> Result<(), ServeError> {
    let io = |action| move |source| ServeError::Io { action, path: path.into(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io("examine")(error)),
        Ok(found) if !found.file_type().is_socket() => Err(ServeError::NotASocket(path.into())),
        Ok(_) if UnixStream::connect(path).await.is_ok() => Err(ServeError::InUse(path.into())),
        Ok(_) => fs::remove_file(path).map_err(io("replace")),
    }
}
