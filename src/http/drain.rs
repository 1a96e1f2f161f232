//! Bodies that nobody reads to their end: a request that is refused by its head alone, or whose body is too large.
//!
//! A connection that is closed while bytes of it lie unread is reset, and a reset takes the answer with it: nginx makes a 502 of it.
//! So what is left is read and thrown away first, as far as that is soon done.

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::EXPECT;
use axum::http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes that are thrown away; a client that sends more is reset.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long that may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Bodies that are thrown away at once; of more, the connection is reset.
const AT_ONCE_MAX: usize = 1_024;

/// How many there are now.
static NOW: AtomicUsize = AtomicUsize::new(0);

/// A body that is read to its end by nobody else than whoever asked for it, or is thrown away.
#[derive(Debug)]
struct Drained {
    body: Option<Incoming>,
    /// Whether its sender waits to be told that it is wanted: until somebody reads it, nothing of it is on its way.
    waits: bool,
}

/// The body of a request, so that what is left of it is thrown away.
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
                // Whether it came to its end or not: there is nobody to tell.
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
