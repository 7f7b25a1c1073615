//! Connections: accepted until the server is told to stop, and then ended in good order.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use super::{routes::routes, state::State};

/// The largest number of connections at a time; others wait to be accepted.
const MOST_CONNECTIONS: usize = 1024;
/// The largest head of a request, in bytes.
const MOST_HEAD: usize = 32 << 10;
/// The time to wait after a connection could not be accepted: the system has no more files, for example.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers connections on `listener` until the server is told to stop.
pub(super) async fn answer(listener: std::net::TcpListener, state: Arc<State>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let router = routes(state.clone());
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let accept = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = state.stop.notified() => break,
            accepted = accept => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        // Tokens are small, and each is to go out at once.
        let _ = stream.set_nodelay(true);
        let connection = graceful.watch(connection(TokioIo::new(stream), router.clone(), state.settings().patience));
        tokio::spawn(async move {
            // A connection that breaks is no error of the server.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    end(&state, graceful).await;
    Ok(())
}

type Connection = http1::Connection<TokioIo<tokio::net::TcpStream>, TowerToHyperService<Router>>;

fn connection(stream: TokioIo<tokio::net::TcpStream>, router: Router, patience: Duration) -> Connection {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(MOST_HEAD);
    builder.serve_connection(stream, TowerToHyperService::new(router))
}

/// Ends the connections once their requests have their answers, within the grace of the settings.
async fn end(state: &State, graceful: GracefulShutdown) {
    state.begin_to_stop();
    let grace = state.settings().grace;
    (state.settings().log)(&format!("stopping: requests in flight have {} s", grace.as_secs()));
    if state.ready.get().is_none() {
        (state.settings().log)("the model was not loaded yet");
    }
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(grace) => (state.settings().log)("the time is over; what is left is cancelled"),
    }
    // Connections that are left are dropped with the runtime, and their requests are cancelled.
    state.close();
}
