//! Carries the bytes of both sides through filters as they arrive: data after a 101, which filters get as bodies, as in
//! Envoy, and connections of `tcp`.

use crate::filters::{Flow, Piece, Stream};
use bytes::{Bytes, BytesMut};
use pyo3::PyResult;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::MutexGuard;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, sleep_until};

pub const SPACE: usize = 16 << 10;

#[derive(Clone, Copy, PartialEq)]
pub enum Side {
    Server,
    Client,
}

impl Side {
    fn other(self) -> Side {
        if self == Side::Server { Side::Client } else { Side::Server }
    }
}

/// Filters that bytes pass.
pub trait Passed {
    fn flow(&self) -> MutexGuard<'_, Flow>;
    /// Feed them a piece on its way to a side.
    fn feed(&self, to: Side, piece: Piece) -> PyResult<()>;
    /// Note that a piece from them was written.
    fn written(&self);
    /// When a piece was last fed to them or written.
    fn moved(&self) -> Instant;
}

/// Await `carried`. Returns its result; `None` if no piece moves through `stream` for `idle`.
pub async fn moving<T>(stream: &impl Passed, idle: Duration, carried: impl Future<Output = T>) -> Option<T> {
    let mut carried = pin!(carried);
    loop {
        let due = stream.moved() + idle;
        if due <= Instant::now() {
            return None;
        }
        tokio::select! {
            biased;
            done = &mut carried => return Some(done),
            () = sleep_until(due) => (),
        }
    }
}

/// A request whose sides have switched to another protocol.
pub struct Switched<'a>(pub &'a Stream, pub Cell<Instant>);

impl Passed for Switched<'_> {
    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.0.flow()
    }

    fn feed(&self, to: Side, piece: Piece) -> PyResult<()> {
        self.1.set(Instant::now());
        match to {
            Side::Server => self.0.request_piece(piece),
            Side::Client => self.0.response_piece(piece),
        }
    }

    fn written(&self) {
        self.1.set(Instant::now());
    }

    fn moved(&self) -> Instant {
        self.1.get()
    }
}

enum Next {
    /// Data from the sender; empty at its end.
    Came(Bytes),
    /// A piece from the filters.
    Out(Piece),
    End,
}

/// Carry bytes through filters until both sides have ended. Returns the side that breaks off, if one does; filters
/// count as the server. `ended`: the client has ended already.
pub async fn both_ways<C, S>(stream: &impl Passed, client: C, server: S, ended: bool) -> Result<(), Side>
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let ((from_client, to_client), (from_server, to_server)) = (split(client), split(server));
    let up = one_way(stream, Side::Server, from_client, to_server, ended);
    let down = one_way(stream, Side::Client, from_server, to_client, false);
    tokio::try_join!(up, down).map(drop)
}

async fn one_way<F, I>(
    stream: &impl Passed,
    to: Side,
    mut from: ReadHalf<F>,
    mut into: WriteHalf<I>,
    mut ended: bool,
) -> Result<(), Side>
where
    F: AsyncRead,
    I: AsyncWrite,
{
    loop {
        let next = poll_fn(|context| poll_next(stream, to, &mut from, ended, context)).await;
        match next.map_err(|_| to.other())? {
            Next::Came(data) => {
                ended = data.is_empty();
                stream.feed(to, Piece::Data(data, ended)).map_err(|error| {
                    crate::unraisable(error);
                    Side::Server
                })?;
            }
            Next::Out(Piece::Data(data, _)) => {
                into.write_all(&data).await.map_err(|_| to)?;
                into.flush().await.map_err(|_| to)?;
                stream.written();
            }
            Next::Out(Piece::Trailers(_)) => (),
            Next::End => return into.shutdown().await.map_err(|_| to),
        }
    }
}

fn poll_next<F: AsyncRead>(
    stream: &impl Passed,
    to: Side,
    from: &mut ReadHalf<F>,
    ended: bool,
    context: &mut Context<'_>,
) -> Poll<io::Result<Next>> {
    {
        let mut flow = stream.flow();
        let flow = &mut *flow;
        if flow.reset || flow.closed || flow.down.head.is_some() {
            flow.wake(); // the other direction ends, too
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let (pieces, complete, full, waker) = match to {
            Side::Server => (&mut flow.up.pieces, flow.up.complete, flow.up.full, &mut flow.up.waker),
            Side::Client => (&mut flow.down.pieces, flow.down.complete, flow.down.full, &mut flow.down.waker),
        };
        if let Some(piece) = pieces.pop_front() {
            return Poll::Ready(Ok(Next::Out(piece)));
        }
        if complete {
            return Poll::Ready(Ok(Next::End));
        }
        *waker = Some(context.waker().clone());
        if full || ended {
            return Poll::Pending;
        }
    }
    let mut space = BytesMut::zeroed(SPACE);
    let mut buffer = ReadBuf::new(&mut space);
    ready!(Pin::new(from).poll_read(context, &mut buffer))?;
    let size = buffer.filled().len();
    space.truncate(size);
    Poll::Ready(Ok(Next::Came(space.freeze())))
}
