//! Retries of a request: when, how soon, and with the same body.

use crate::body::{Next, Stopped, Up};
use crate::config::{Retry, RetryOn};
use crate::upstream::{Failure, UpstreamError};
use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A retry policy, as in Envoy.
pub struct Policy(Retry);

impl Policy {
    pub fn new(settings: Retry) -> Policy {
        Policy(settings)
    }

    pub fn num_retries(&self) -> u32 {
        self.0.num_retries
    }

    pub fn per_try_timeout(&self) -> Option<Duration> {
        self.0.per_try_timeout.map(|seconds| seconds.0)
    }

    pub fn max_body(&self) -> usize {
        self.0.max_body
    }

    fn is_on(&self, on: RetryOn) -> bool {
        self.0.retry_on.contains(&on)
    }

    pub fn wants_after<B>(&self, outcome: &Result<Response<B>, UpstreamError>) -> bool {
        match outcome {
            Ok(response) => self.wants_after_response(response),
            Err(error) => match error.failure {
                Failure::Ours | Failure::Late => false,
                Failure::Connect => self.is_on(RetryOn::ConnectFailure) || self.wants_after_reset(),
                Failure::Refused => self.is_on(RetryOn::RefusedStream) || self.wants_after_reset(),
                Failure::Reset => self.wants_after_reset(),
            },
        }
    }

    fn wants_after_reset(&self) -> bool {
        self.is_on(RetryOn::Reset) || self.is_on(RetryOn::ServerError) || self.is_on(RetryOn::GatewayError)
    }

    fn wants_after_response<B>(&self, response: &Response<B>) -> bool {
        let status = response.status().as_u16();
        let grpc = || response.headers().get("grpc-status").map(http::HeaderValue::as_bytes);
        (status >= 500 && self.is_on(RetryOn::ServerError))
            || (matches!(status, 502..=504) && self.is_on(RetryOn::GatewayError))
            || (self.is_on(RetryOn::RetriableStatusCodes) && self.0.retriable_status_codes.contains(&status))
            || match grpc() {
                Some(b"1") => self.is_on(RetryOn::Cancelled),
                Some(b"4") => self.is_on(RetryOn::DeadlineExceeded),
                Some(b"8") => self.is_on(RetryOn::ResourceExhausted),
                Some(b"13") => self.is_on(RetryOn::Internal),
                Some(b"14") => self.is_on(RetryOn::Unavailable),
                _ => false,
            }
    }

    /// How long to wait before a retry (1 is the first): a random time, below a limit that grows exponentially.
    pub fn wait(&self, retry: u32) -> Duration {
        let most = self.0.base_interval.0.saturating_mul(2_u32.saturating_pow(retry) - 1).min(self.0.max_interval.0);
        most.mul_f64(fastrand::f64())
    }
}

/// A request's body that can be sent again from its beginning, while it is not larger than `most`.
#[derive(Clone)]
pub struct Kept(Arc<Mutex<Inside>>);

struct Inside {
    rest: Up,
    frames: Vec<Frame<Bytes>>,
    size: usize,
    most: usize,
    ended: bool,
    /// The body cannot be sent again: it was too large, or broke off.
    lost: bool,
    attempt: u32,
    hint: SizeHint,
}

impl Kept {
    pub fn new(body: Up, most: usize) -> Kept {
        let hint = body.size_hint();
        let lost = hint.lower() > most as u64;
        let frames = Vec::new();
        Kept(Arc::new(Mutex::new(Inside { rest: body, frames, size: 0, most, ended: false, lost, attempt: 0, hint })))
    }

    /// The body for the next attempt, which ends earlier ones; `None` if it cannot be sent again.
    pub fn again(&self) -> Option<Up> {
        let mut inside = self.0.lock().unwrap();
        if inside.attempt > 0 && inside.lost {
            return None;
        }
        inside.attempt += 1;
        Some(Up::Kept(Attempt { kept: self.clone(), number: inside.attempt, next: 0 }))
    }
}

/// The body of one attempt.
pub struct Attempt {
    kept: Kept,
    number: u32,
    next: usize,
}

fn copied(frame: &Frame<Bytes>) -> Frame<Bytes> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Frame::data(data.clone()),
        (_, trailers) => Frame::trailers(trailers.cloned().unwrap_or_default()),
    }
}

impl Attempt {
    pub fn poll(&mut self, context: &mut Context<'_>) -> Next {
        let mut inside = self.kept.0.lock().unwrap();
        let inside = &mut *inside;
        if self.number != inside.attempt {
            return Poll::Ready(Some(Err(Stopped::Broken)));
        }
        if let Some(frame) = inside.frames.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(copied(frame))));
        }
        if inside.ended {
            return Poll::Ready(None);
        }
        let next = ready!(Pin::new(&mut inside.rest).poll_frame(context));
        match &next {
            None => inside.ended = true,
            Some(Err(_)) => inside.lost = true,
            Some(Ok(_)) if inside.lost => (),
            Some(Ok(frame)) => {
                inside.size += frame.data_ref().map_or(0, Bytes::len);
                if inside.size > inside.most {
                    inside.lost = true;
                    inside.frames.clear();
                } else {
                    inside.frames.push(copied(frame));
                    self.next += 1;
                }
            }
        }
        Poll::Ready(next)
    }

    pub fn is_end(&self) -> bool {
        let inside = self.kept.0.lock().unwrap();
        self.next >= inside.frames.len() && (inside.ended || inside.rest.is_end_stream())
    }

    pub fn hint(&self) -> SizeHint {
        self.kept.0.lock().unwrap().hint
    }
}
