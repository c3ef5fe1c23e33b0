//! Reads bodies that hostile programs write: bounded in size, in time, and in what all of one owner's take together.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use kinglet_decide::call::CallBody;
pub(crate) use kinglet_events::binding::BODY_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A body may have so many bytes without asking for room: what most events have.
pub(crate) const SMALL_BYTES_MAX: usize = 64 << 10;
/// Room of one owner (a channel's or Broker's incoming bodies, a subscription's answers) beyond the small ones: two of the
/// largest.
const ROOM_KIB: u32 = 2 * 16 * 1024;
const _: () = assert!(ROOM_KIB as usize == 2 * BODY_BYTES_MAX / 1024);
/// A sender that is silent for so long within a body is given up (Knative's servers read for 10 s).
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A request's body must be there within this time, whatever its size; it takes room until then.
pub(crate) const READ_WITHIN: Duration = Duration::from_secs(60);

/// Room for the large bodies of one owner. Whoever finds it taken waits for the others of the same owner only.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_KIB as usize)))
    }
}

impl Room {
    /// Takes room for so many bytes; all of it when they are more.
    pub(crate) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).ok()?;
        let semaphore = Arc::clone(&self.0);
        semaphore.acquire_many_owned(kib.min(ROOM_KIB)).await.ok()
    }

    /// Takes room for what is not small.
    pub(crate) async fn take_if_large(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        match bytes > SMALL_BYTES_MAX {
            true => self.take(bytes).await,
            false => None,
        }
    }
}

/// A body, and the room that it takes until this is dropped.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the body is larger than {0} bytes, the most that is taken")]
    TooLarge(usize),
    #[error("the body broke off: {0}")]
    Broken(String),
    #[error("the body's sender was silent for {} seconds", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the body was not there within {} seconds", READ_WITHIN.as_secs())]
    Slow,
}

/// Reads a body of a request or an answer to its end. Without `room` it may be small only.
pub(crate) async fn read(
    mut body: CallBody,
    room: Option<&Room>,
    silence_max: Option<Duration>,
) -> Result<Read, ReadError> {
    let bytes_max = match room {
        Some(_) => BODY_BYTES_MAX,
        None => SMALL_BYTES_MAX,
    };
    let too_large = |bytes: u64| usize::try_from(bytes).map_or(true, |bytes| bytes > bytes_max);
    let hint = body.size_hint();
    if too_large(hint.lower()) {
        return Err(ReadError::TooLarge(bytes_max));
    }
    let mut taken = None;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let frame = match silence_max {
            None => body.frame().await,
            Some(silence) => tokio::time::timeout(silence, body.frame())
                .await
                .map_err(|_| ReadError::Silent)?,
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| ReadError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue; // trailers
        };
        let bytes = first.len() + rest.len() + data.len();
        if bytes > bytes_max {
            return Err(ReadError::TooLarge(bytes_max));
        }
        if let (None, Some(room), true) = (&taken, room, bytes > SMALL_BYTES_MAX) {
            let known = hint.exact().and_then(|exact| usize::try_from(exact).ok());
            let wanted = known.unwrap_or(BODY_BYTES_MAX).max(bytes);
            taken = room.take(wanted).await;
        }
        if first.is_empty() && rest.is_empty() {
            // One frame is all that most bodies have: it is not copied.
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    let bytes = if rest.is_empty() {
        first
    } else {
        rest.freeze()
    };
    Ok(Read {
        bytes,
        _room: taken,
    })
}

/// Reads the beginning of a body, up to [`SMALL_BYTES_MAX`]; what follows, and how it ends, matters to nobody.
pub(crate) async fn read_beginning(mut body: CallBody) -> Bytes {
    let mut read = BytesMut::new();
    while read.len() < SMALL_BYTES_MAX
        && let Some(data) = next_data(&mut body).await
    {
        let left = SMALL_BYTES_MAX - read.len();
        read.extend_from_slice(&data[..data.len().min(left)]);
    }
    read.freeze()
}

/// Reads a body of which it matters only whether there is one: its first bytes. The rest is read for `rest_wait` at most,
/// so that the connection can be used again.
pub(crate) async fn read_first(mut body: CallBody, rest_wait: Duration) -> Bytes {
    let Some(first) = next_data(&mut body).await else {
        return Bytes::new();
    };
    let _ = tokio::time::timeout(rest_wait, read_beginning(body)).await;
    first
}

/// The next bytes of a body, without the empty pieces.
async fn next_data(body: &mut CallBody) -> Option<Bytes> {
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data() {
            Ok(data) if !data.is_empty() => return Some(data),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use kinglet_decide::call::BoxError;

    fn frames(count: usize, bytes: usize) -> CallBody {
        let frame = Bytes::from(vec![b'x'; bytes]);
        Box::pin(StreamBody::new(futures_util::stream::iter(
            (0..count).map(move |_| Ok::<_, BoxError>(Frame::data(frame.clone()))),
        )))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound_and_no_further() {
        let room = Room::default();
        let read_all = read(frames(16, 1 << 20), Some(&room), None).await.unwrap();
        assert_eq!(read_all.bytes.len(), 16 << 20);
        // A gigabyte stops at the first frame that is too much.
        let error = read(frames(1024, 1 << 20), Some(&room), None).await;
        assert!(matches!(error, Err(ReadError::TooLarge(BODY_BYTES_MAX))));
        let error = read(frames(2, 64 << 10), None, None).await;
        assert!(matches!(error, Err(ReadError::TooLarge(SMALL_BYTES_MAX))));
        assert_eq!(
            read_beginning(frames(1024, 1 << 20)).await.len(),
            SMALL_BYTES_MAX
        );
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_of_one_owner_wait_for_each_other_and_small_ones_do_not() {
        let room = Room::default();
        let one = read(frames(16, 1 << 20), Some(&room), None).await.unwrap();
        let two = read(frames(16, 1 << 20), Some(&room), None).await.unwrap();
        let third = read(frames(16, 1 << 20), Some(&room), None);
        assert!(
            tokio::time::timeout(Duration::from_secs(60), third)
                .await
                .is_err()
        );
        read(frames(1, 1024), Some(&room), None).await.unwrap();
        drop(one);
        read(frames(16, 1 << 20), Some(&room), None).await.unwrap();
        drop(two);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_sender_is_given_up() {
        let body: CallBody = Box::pin(StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, BoxError>,
        >()));
        let error = read(body, None, Some(SILENCE_MAX)).await;
        assert!(matches!(error, Err(ReadError::Silent)));
    }
}
