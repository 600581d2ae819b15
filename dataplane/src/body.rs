//! Bodies on their way to upstream and to the client, through filters or past them.
//!
//! The receiver asks a body for its next piece, and the body asks the sender: nothing is read before it is needed, and
//! only pieces that filters hold are buffered here.

use crate::access::Record;
use crate::filters::{Piece, Stream};
use crate::retry::Attempt;
use crate::server::Busy;
use crate::upstream::Lease;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// Why a body breaks off.
#[derive(Debug, Clone, Copy)]
pub enum Stopped {
    TooSlow,
    /// The sender, or a filter, broke off.
    Broken,
    WrongLength,
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{self:?}")
    }
}

impl std::error::Error for Stopped {}

pub type Next = Poll<Option<Result<Frame<Bytes>, Stopped>>>;

/// A body to read, with a limit on the time without progress.
pub struct Source {
    pub body: Incoming,
    idle: Duration,
    /// Most trailers; a body with more breaks off.
    fields: usize,
    late: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    progress: Option<Progress>,
    deadline: Option<Instant>,
    /// Why it has broken off; reported at the next read.
    stopped: Option<Stopped>,
}

/// When a part of a body last arrived, and why no more will.
#[derive(Clone)]
pub struct Progress(Arc<Mutex<(Instant, Option<Stopped>)>>);

impl Progress {
    pub fn begin() -> Progress {
        Progress(Arc::new(Mutex::new((Instant::now(), None))))
    }

    pub fn last(&self) -> Instant {
        self.0.lock().unwrap().0
    }

    pub fn stopped(&self) -> Option<Stopped> {
        self.0.lock().unwrap().1
    }
}

impl Source {
    pub fn new(body: Incoming, idle: Duration, fields: usize) -> Source {
        Source { body, idle, fields, late: None, waiting: false, progress: None, deadline: None, stopped: None }
    }

    /// Set the time by which the whole body must have arrived.
    pub fn until(self, deadline: Option<Instant>) -> Source {
        Source { deadline, ..self }
    }

    pub fn noting(self, progress: &Progress) -> Source {
        Source { progress: Some(progress.clone()), ..self }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Next {
        if let Some(stopped) = self.stopped.take() {
            return Poll::Ready(Some(Err(stopped)));
        }
        let next = ready!(self.poll_in_time(context));
        if let Some(progress) = &self.progress {
            let stopped = next.as_ref().and_then(|frame| frame.as_ref().err().copied());
            *progress.0.lock().unwrap() = (Instant::now(), stopped);
        }
        Poll::Ready(next)
    }

    fn poll_in_time(&mut self, context: &mut Context<'_>) -> Next {
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Poll::Ready(Some(Err(Stopped::TooSlow)));
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(next) => {
                self.waiting = false;
                Poll::Ready(next.map(|frame| match frame {
                    Ok(frame) if frame.trailers_ref().is_none_or(|all| all.len() <= self.fields) => Ok(frame),
                    _ => Err(Stopped::Broken),
                }))
            }
            Poll::Pending => {
                let late = self.late.get_or_insert_with(|| Box::pin(sleep(self.idle)));
                if !std::mem::replace(&mut self.waiting, true) {
                    let idle = Instant::now() + self.idle;
                    late.as_mut().reset(self.deadline.map_or(idle, |deadline| deadline.min(idle)));
                }
                ready!(late.as_mut().poll(context));
                Poll::Ready(Some(Err(Stopped::TooSlow)))
            }
        }
    }
}

fn frame(piece: Piece) -> Frame<Bytes> {
    match piece {
        Piece::Data(data, _) => Frame::data(data),
        Piece::Trailers(trailers) => Frame::trailers(trailers),
    }
}

fn piece(frame: Frame<Bytes>, end: bool) -> Option<Piece> {
    match frame.into_data() {
        Ok(data) => Some(Piece::Data(data, end)),
        Err(frame) => frame.into_trailers().ok().map(Piece::Trailers),
    }
}

/// The next piece for the filters, and whether it is the last.
pub fn poll_piece(source: &mut Source, context: &mut Context<'_>) -> Poll<Result<(Piece, bool), Stopped>> {
    loop {
        return Poll::Ready(match ready!(source.poll(context)) {
            None => Ok((Piece::Data(Bytes::new(), true), true)),
            Some(Err(stopped)) => Err(stopped),
            Some(Ok(frame)) => {
                let end = source.body.is_end_stream();
                match piece(frame, end) {
                    Some(piece) => {
                        let end = end || matches!(piece, Piece::Trailers(_));
                        Ok((piece, end))
                    }
                    None => continue,
                }
            }
        });
    }
}

/// Return the first piece of a body if it has arrived, so that filters get it together with the head. A source that has
/// ended becomes `None`.
pub async fn first_piece(source: &mut Option<Source>) -> Option<Piece> {
    poll_fn(|context| {
        let Some(from) = source else {
            return Poll::Ready(None);
        };
        Poll::Ready(match poll_piece(from, context) {
            Poll::Pending => None,
            Poll::Ready(Ok((piece, end))) => {
                if end {
                    *source = None;
                }
                Some(piece)
            }
            Poll::Ready(Err(stopped)) => {
                from.stopped = Some(stopped);
                None
            }
        })
    })
    .await
}

/// Feed the next piece of the request to the filters; a source that has ended becomes `None`. Returns false after an
/// exception, which has been reported.
pub fn poll_feed(
    stream: &Stream,
    source: &mut Option<Source>,
    context: &mut Context<'_>,
) -> Poll<Result<bool, Stopped>> {
    let Some(from) = source else {
        return Poll::Pending;
    };
    let (piece, end) = ready!(poll_piece(from, context))?;
    if end {
        *source = None;
    }
    stream.flow().up.waker = None;
    let fed = stream.request_piece(piece).map_err(crate::unraisable);
    Poll::Ready(Ok(fed.is_ok()))
}

/// The body of a request to upstream.
pub enum Up {
    Nothing,
    Plain(Source),
    /// Through filters; the source is `None` once the client has sent everything.
    Filtered(Arc<Stream>, Option<Source>, Size),
    /// A body that may have to be sent again.
    Kept(Attempt),
}

impl Body for Up {
    type Data = Bytes;
    type Error = Stopped;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Next {
        match &mut *self {
            Up::Nothing => Poll::Ready(None),
            Up::Plain(source) => source.poll(context),
            Up::Kept(attempt) => attempt.poll(context),
            Up::Filtered(stream, source, size) => loop {
                {
                    let mut flow = stream.flow();
                    if let Some(piece) = flow.up.pieces.pop_front() {
                        if matches!(&piece, Piece::Data(data, _) if data.is_empty()) {
                            continue;
                        }
                        return Poll::Ready(Some(size.checked(frame(piece))));
                    }
                    if flow.up.complete {
                        return Poll::Ready(size.ended().map(Err));
                    }
                    if flow.reset || flow.closed {
                        return Poll::Ready(Some(Err(Stopped::Broken)));
                    }
                    flow.up.waker = Some(context.waker().clone());
                    if flow.up.full || source.is_none() {
                        return Poll::Pending;
                    }
                }
                match ready!(poll_feed(stream, source, context)) {
                    Ok(true) => (),
                    Ok(false) => return Poll::Ready(Some(Err(Stopped::Broken))),
                    Err(stopped) => return Poll::Ready(Some(Err(stopped))),
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Up::Nothing => true,
            Up::Plain(source) => source.body.is_end_stream(),
            Up::Kept(attempt) => attempt.is_end(),
            Up::Filtered(stream, ..) => {
                let flow = stream.flow();
                flow.up.complete && flow.up.pieces.is_empty()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Up::Nothing => SizeHint::with_exact(0),
            Up::Plain(source) => source.body.size_hint(),
            Up::Kept(attempt) => attempt.hint(),
            Up::Filtered(_, _, size) => size.hint(),
        }
    }
}

/// Bytes still expected of a body from the filters, by the `content-length` of its head; `None` without one.
pub struct Size(pub Option<u64>);

impl Size {
    fn checked(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Stopped> {
        if let (Some(left), Some(data)) = (&mut self.0, frame.data_ref()) {
            *left = left.checked_sub(data.len() as u64).ok_or(Stopped::WrongLength)?;
        }
        Ok(frame)
    }

    fn ended(&self) -> Option<Stopped> {
        self.0.filter(|left| *left > 0).map(|_| Stopped::WrongLength)
    }

    fn hint(&self) -> SizeHint {
        self.0.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The body of a response, and everything that is released at its end.
pub struct Down {
    pub content: Content,
    pub record: Record,
    pub stream: Option<Finish>,
    pub _lease: Option<Lease>,
    pub busy: Busy,
}

pub enum Content {
    Nothing,
    Whole(Option<Bytes>),
    Plain(Source),
    Filtered(Option<Source>, Size),
}

/// Closes the stream when it is dropped: in the regular way if the flag is set, else because the client has left.
pub struct Finish(pub Arc<Stream>, pub bool);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish(!self.1);
    }
}

impl Content {
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Content::Nothing => SizeHint::with_exact(0),
            Content::Whole(data) => SizeHint::with_exact(data.as_ref().map_or(0, Bytes::len) as u64),
            Content::Plain(source) => source.body.size_hint(),
            Content::Filtered(_, size) => size.hint(),
        }
    }
}

impl Down {
    fn poll(&mut self, context: &mut Context<'_>) -> Next {
        match &mut self.content {
            Content::Nothing => Poll::Ready(None),
            Content::Whole(data) => {
                Poll::Ready(data.take().filter(|data| !data.is_empty()).map(|data| Ok(Frame::data(data))))
            }
            Content::Plain(source) => source.poll(context),
            Content::Filtered(source, size) => {
                let stream = &self.stream.as_ref().expect("filters").0;
                loop {
                    {
                        let mut flow = stream.flow();
                        if let Some(piece) = flow.down.pieces.pop_front() {
                            if matches!(&piece, Piece::Data(data, _) if data.is_empty()) {
                                continue;
                            }
                            return Poll::Ready(Some(size.checked(frame(piece))));
                        }
                        if flow.down.complete {
                            return Poll::Ready(size.ended().map(Err));
                        }
                        if flow.reset || flow.closed {
                            return Poll::Ready(Some(Err(Stopped::Broken)));
                        }
                        flow.down.waker = Some(context.waker().clone());
                        if flow.down.full || source.is_none() {
                            return Poll::Pending;
                        }
                    }
                    let Some(from) = source else {
                        return Poll::Pending;
                    };
                    match ready!(poll_piece(from, context)) {
                        Ok((piece, end)) => {
                            if end {
                                *source = None;
                            }
                            stream.flow().down.waker = None;
                            if let Err(error) = stream.response_piece(piece) {
                                crate::unraisable(error);
                                return Poll::Ready(Some(Err(Stopped::Broken)));
                            }
                        }
                        Err(stopped) => return Poll::Ready(Some(Err(stopped))),
                    }
                }
            }
        }
    }
}

impl Body for Down {
    type Data = Bytes;
    type Error = Stopped;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Next {
        let next = ready!(self.poll(context));
        match &next {
            Some(Ok(frame)) => self.record.bytes += frame.data_ref().map_or(0, Bytes::len) as u64,
            _ => {
                if next.is_some() {
                    self.busy.broken();
                }
                if let Some(finish) = &mut self.stream {
                    finish.1 = true;
                }
            }
        }
        if self.is_end_stream()
            && let Some(finish) = &mut self.stream
        {
            finish.1 = true;
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Nothing => true,
            Content::Whole(data) => data.as_ref().is_none_or(Bytes::is_empty),
            Content::Plain(source) => source.body.is_end_stream(),
            Content::Filtered(..) => {
                let flow = self.stream.as_ref().expect("filters").0.flow();
                flow.down.complete && flow.down.pieces.is_empty()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}
