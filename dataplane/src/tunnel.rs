//! What both sides say after they have agreed on another protocol (a 101): bytes, which filters see as bodies, as in
//! Envoy.

use crate::filters::{Piece, Stream};
use bytes::{Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, copy_bidirectional, split};

const SPACE: usize = 16 << 10;

type Side = TokioIo<Upgraded>;

#[derive(Clone, Copy)]
enum To {
    Server,
    Client,
}

enum Next {
    /// From a side; empty: it says no more.
    Came(Bytes),
    /// Out of the filters.
    Out(Piece),
    End,
}

/// Carry what is said until both have ended, or one of them, or a filter, breaks off; returns whether they have ended.
pub async fn carry(stream: Option<&Arc<Stream>>, client: Upgraded, server: Upgraded) -> bool {
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    let Some(stream) = stream else {
        return copy_bidirectional(&mut client, &mut server).await.is_ok();
    };
    let ((from_client, to_client), (from_server, to_server)) = (split(client), split(server));
    let up = one_way(stream, To::Server, from_client, to_server);
    let down = one_way(stream, To::Client, from_server, to_client);
    tokio::try_join!(up, down).is_ok()
}

async fn one_way(stream: &Arc<Stream>, to: To, mut from: ReadHalf<Side>, mut into: WriteHalf<Side>) -> io::Result<()> {
    let mut ended = false;
    loop {
        match poll_fn(|context| poll_next(stream, to, &mut from, ended, context)).await? {
            Next::Came(data) => {
                ended = data.is_empty();
                let piece = Piece::Data(data, ended);
                let fed = match to {
                    To::Server => stream.request_piece(piece),
                    To::Client => stream.response_piece(piece),
                };
                fed.map_err(|error| {
                    crate::unraisable(error);
                    io::Error::from(io::ErrorKind::ConnectionAborted)
                })?;
            }
            Next::Out(Piece::Data(data, _)) => into.write_all(&data).await?,
            Next::Out(Piece::Trailers(_)) => (),
            Next::End => return into.shutdown().await,
        }
    }
}

fn poll_next(
    stream: &Stream,
    to: To,
    from: &mut ReadHalf<Side>,
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
            To::Server => (&mut flow.up.pieces, flow.up.complete, flow.up.full, &mut flow.up.waker),
            To::Client => (&mut flow.down.pieces, flow.down.complete, flow.down.full, &mut flow.down.waker),
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
