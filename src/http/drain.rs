//! The rest of bodies that are not read to the end: the request was refused by its head, or its body is too large.
//!
//! Closing a connection with unread bytes resets it, and a reset loses the answer: nginx makes a 502 of it. So the rest
//! of the body is first read and discarded, within limits of bytes and time.

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::EXPECT;
use axum::http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// Most bytes that are discarded; a client that sends more is reset.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(2);
/// Most bodies that are discarded at once; beyond that, connections are reset.
const AT_ONCE_MAX: usize = 1_024;

/// The number of bodies that are being discarded.
static NOW: AtomicUsize = AtomicUsize::new(0);

/// A body that is discarded if its reader does not read it to the end.
#[derive(Debug)]
struct Drained {
    body: Option<Incoming>,
    /// True if the client sent `Expect` and nobody has read yet: then it has not sent the body.
    waits: bool,
}

/// The body of a request, with the rest discarded when it is dropped.
pub(super) fn drained(parts: &Parts, body: Incoming) -> Body {
    if body.is_end_stream() {
        return Body::empty();
    }
    Body::new(Drained { body: Some(body), waits: parts.headers.contains_key(EXPECT) })
}

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !self.waits && !body.is_end_stream()) else {
            return;
        };
        if NOW.fetch_add(1, Ordering::AcqRel) < AT_ONCE_MAX
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                // The result does not matter: nobody waits for it.
                let _ = tokio::time::timeout(TIMEOUT, throw_away(body)).await;
                NOW.fetch_sub(1, Ordering::AcqRel);
            });
        } else {
            NOW.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

async fn throw_away(mut body: Incoming) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if bytes > BYTES_MAX {
            return;
        }
    }
}
