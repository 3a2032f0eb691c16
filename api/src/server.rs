//! Sockets. The accept loop is our own because the stock one sets no timer, which leaves a half-sent request head open for
//! ever; here heads have a deadline, connections a bound, and shutdown a limit.
//!
//! One more connection than the bound is answered 503 and closed; that costs a write, no task.
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
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::{App, Limits, Tls, jobs, refresh, routes};

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
    tls: Option<Tls>,
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
        Ok(Self { listener, address, tls: None })
    }

    /// Speaks TLS, and nothing else.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The address, with the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` resolves, then takes no more, and waits for open requests and the job that
    /// runs up to [`Limits::drain`]; a job that takes longer is lost to this server alone, the next one goes on with it. Warms the pools up, and
    /// looks for new generations, in the background.
    pub async fn serve(self, app: Arc<App>, shutdown: impl Future<Output = ()> + Send) -> Drained {
        let warming = Arc::clone(&app);
        drop(tokio::task::spawn_blocking(move || warming.warm_up()));
        let connections = GracefulShutdown::new();
        let jobs_end = app.jobs.is_some().then(|| jobs::work(&app));
        tokio::select! {
            () = accept_forever(&app, &self, &connections) => {}
            () = refresh::watch(Arc::clone(&app)), if app.limits().refresh.is_some() => {}
            () = shutdown => {}
        }
        drop(self.listener);
        if let Some(jobs) = &app.jobs {
            jobs.stop();
        }
        let through = async {
            connections.shutdown().await;
            if let Some(end) = jobs_end {
                // An error means that the thread is gone, which is what is waited for.
                let _ = end.await;
            }
        };
        match tokio::time::timeout(app.limits().drain, through).await {
            Ok(()) => Drained::Clean,
            Err(_) => Drained::CutShort,
        }
    }
}

async fn accept_forever(app: &Arc<App>, server: &Server, connections: &GracefulShutdown) {
    let router = routes::router(app);
    let slots = Arc::new(Semaphore::new(app.limits().max_connections.min(Semaphore::MAX_PERMITS)));
    loop {
        match server.listener.accept().await {
            Ok((stream, _)) => match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => {
                    let tls = server.tls.as_ref().map(|tls| tls.acceptor.clone());
                    let connection =
                        Connection { router: router.clone(), limits: app.limits().clone(), watcher: connections.watcher() };
                    tokio::spawn(connection.answer(stream, tls, slot));
                }
                Err(_) => refuse(&stream, server.tls.is_some(), app),
            },
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection too many: it is told so, as far as its socket takes that at once.
fn refuse(stream: &TcpStream, tls: bool, app: &App) {
    app.metrics.error("too_many_connections");
    if !tls {
        // A client whose socket does not take it sees a closed connection, which says the same.
        let _ = stream.try_write(too_many().as_bytes());
    }
}

fn too_many() -> String {
    const BODY: &str = r#"{"error":{"code":"too_many_connections","message":"the server has as many connections as it allows; try again in a moment"}}"#;
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

/// What a connection is served with.
struct Connection {
    router: Router,
    limits: Limits,
    watcher: Watcher,
}

impl Connection {
    async fn answer(self, stream: TcpStream, tls: Option<TlsAcceptor>, _slot: OwnedSemaphorePermit) {
        // Answers are written whole; without this the last packet of each waits for an acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY on a connection");
        }
        let Some(tls) = tls else { return self.converse(stream).await };
        match tokio::time::timeout(self.limits.header_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.converse(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS on a connection"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let router = self.router;
        let service = service_fn(move |request| answer(router.clone(), request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(self.limits.header_bytes.max(8192))
            .max_headers(self.limits.headers)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended early");
        }
    }
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
