//! Sockets. The accept loop is our own because the stock one sets no timer, which leaves a half-sent request head open for
//! ever; here heads have a deadline, connections a bound, and shutdown a limit.
//!
//! HTTP/1.1 only: HTTP/2 without TLS is spoken by no browser, and a proxy that ends TLS speaks 1.1 to what is behind it.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{Request, Uri, uri::PathAndQuery},
    response::Response,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::ServiceExt as _;

use crate::{App, Limits, routes};

/// After a failed accept (no file descriptors left, usually): long enough to let some connection end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is taken, not ours, or not allowed.
    #[error("cannot listen on {address}; choose another address or port, or stop what is using it")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's word.
        source: std::io::Error,
    },
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every open request was answered.
    Clean,
    /// Some were still open when [`Limits::drain`] had passed.
    CutShort,
}

/// A listening socket.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`ServeError::Bind`].
    pub async fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address, with the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// As [`serve`].
    pub async fn serve(self, app: Arc<App>, shutdown: impl Future<Output = ()> + Send) -> Drained {
        serve(app, self.listener, shutdown).await
    }
}

/// Answers on `listener` until `shutdown` resolves, then takes no more, and waits for open requests up to [`Limits::drain`].
/// Warms the pools up in the background.
pub async fn serve(app: Arc<App>, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Drained {
    let warming = Arc::clone(&app);
    drop(tokio::task::spawn_blocking(move || warming.warm_up()));
    let connections = GracefulShutdown::new();
    let accepting = accept_forever(&app, &listener, &connections);
    tokio::select! {
        () = accepting => {}
        () = shutdown => {}
    }
    drop(listener);
    match tokio::time::timeout(app.limits().drain, connections.shutdown()).await {
        Ok(()) => Drained::Clean,
        Err(_) => Drained::CutShort,
    }
}

async fn accept_forever(app: &Arc<App>, listener: &TcpListener, connections: &GracefulShutdown) {
    let router = routes::router(app);
    let slots = Arc::new(Semaphore::new(app.limits().max_connections.min(Semaphore::MAX_PERMITS)));
    // The semaphore is never closed, so this loop ends only by being dropped.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => spawn_connection(app.limits(), router.clone(), stream, slot, connections),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn spawn_connection(
    limits: &Limits,
    router: Router,
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    connections: &GracefulShutdown,
) {
    // Answers are written whole; without this the last packet of each waits for an acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY on a connection");
    }
    let service = service_fn(move |request| answer(router.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes.max(8192))
        .max_headers(limits.headers)
        .serve_connection(TokioIo::new(stream), service);
    let watched = connections.watch(connection);
    tokio::spawn(async move {
        let _slot = slot;
        if let Err(error) = watched.await {
            tracing::debug!(%error, "a connection ended early");
        }
    });
}

async fn answer(router: Router, mut request: Request<Incoming>) -> Result<Response, Infallible> {
    if let Some(uri) = single_slashes(request.uri()) {
        *request.uri_mut() = uri;
    }
    router.oneshot(request).await
}

/// clip-retrieval's page joins its back end's URL and the path with one slash too many. `None` when nothing is to do.
fn single_slashes(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("//") {
        return None;
    }
    let mut clean = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !clean.ends_with('/') {
            clean.push(c);
        }
    }
    if let Some(query) = uri.query() {
        clean.push('?');
        clean.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(clean).ok()?);
    Uri::from_parts(parts).ok()
}
