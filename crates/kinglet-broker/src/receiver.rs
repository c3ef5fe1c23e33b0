//! What takes events in for a channel (spec/eventing.md 7.5).
//!
//! A durable channel's 202 means that the event is synced. A channel in memory answers as Knative's InMemoryChannel does:
//! 202 when every delivery is finished, 500 when one failed, unless it is asynchronous.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use kinglet_events::Event;
use kinglet_events::delivery::remaining_ttl;

use crate::access::{self, Sender};
use crate::answer::{Answer, refuse, status};
use crate::engine::{AppendError, Outcome, Settled, Uid};
use crate::feed::Addressable;
use crate::plane::{ChannelEntry, Plane};
use crate::stored;

/// The longest that an answer waits for deliveries.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(15 * 60);
/// When a full channel asks to be tried again, in seconds.
const FULL_RETRY_AFTER: u32 = 5;

/// Takes an event for a channel.
pub(crate) async fn accept(
    plane: &Plane,
    channel: &ChannelEntry,
    event: Event,
    passed_on: HeaderMap,
    sender: Sender<'_>,
) -> Answer {
    let route = channel.route.load_full();
    let key = &channel.id.key;
    let allowed = access::check(
        &*plane.verify,
        &route.access,
        &key.namespace,
        sender,
        &event,
    );
    if let Err(refused) = allowed.await {
        return refused;
    }
    if route.auto_event_types {
        plane
            .reports
            .seen(Addressable::Channel, &channel.id.kind, key, &event);
    }
    let settles = !channel.durable && !route.asynchronous && !is_reply(&event, plane.ttl_default);
    let packed = stored::pack(&event, &passed_on, plane.clock.now());
    if !settles {
        return match channel.log.append(packed).await {
            Ok(_) => status(StatusCode::ACCEPTED),
            Err(error) => refused(&error),
        };
    }
    let settling = tokio::time::timeout(SETTLE_MAX, channel.log.append_and_settle(packed));
    let settled = tokio::select! {
        biased;
        settled = settling => settled,
        () = plane.stopped.cancelled() => {
            return refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                format_args!("shutting down: not every delivery of channel {key} was finished; send the event again"),
            );
        }
    };
    match settled {
        Ok(Ok(settled)) => settled_answer(channel, &settled),
        Ok(Err(error)) => refused(&error),
        Err(_) => refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            format_args!(
                "the deliveries of channel {key} have not ended within {} minutes; they go on",
                SETTLE_MAX.as_secs() / 60
            ),
        ),
    }
}

/// A dead letter that was taken counts as delivered.
fn settled_answer(channel: &ChannelEntry, settled: &Settled) -> Answer {
    let failed: Vec<&Uid> = settled
        .failed
        .iter()
        .filter(|(_, outcome)| *outcome != Outcome::DeadLettered)
        .map(|(uid, _)| uid)
        .collect();
    if failed.is_empty() {
        return status(StatusCode::ACCEPTED);
    }
    refuse(
        StatusCode::INTERNAL_SERVER_ERROR,
        format_args!(
            "{} of the deliveries of channel {} failed: {}",
            failed.len(),
            channel.id.key,
            channel.names(failed.iter().copied()),
        ),
    )
}

/// Whether an event has come back to its Broker. The delivery that it answers holds a place until the answer, and a
/// subscription has a bounded number: were this waited for, a Trigger whose replies it matches itself would wait for
/// its own places.
fn is_reply(event: &Event, ttl_default: i32) -> bool {
    remaining_ttl(event).is_some_and(|left| left < ttl_default)
}

fn refused(error: &AppendError) -> Answer {
    let code = match error {
        AppendError::Full { .. } => StatusCode::TOO_MANY_REQUESTS,
        AppendError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        AppendError::DiskFull { .. } | AppendError::Disk { .. } | AppendError::Closed { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let mut answer = refuse(code, error);
    if error.is_temporary() {
        let seconds = HeaderValue::from(FULL_RETRY_AFTER);
        answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    answer
}
