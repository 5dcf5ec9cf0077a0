//! The names of the events that webhooks and `/v1/events` tell of; EmailEngine's where it has them.

/// All of them.
pub const EVENT_NAMES: [&str; 9] = [
    "messageSent",
    "messageDeliveryError",
    "messageFailed",
    "messageBounce",
    "messageComplaint",
    "deliveryReport",
    "autoReply",
    "messageClosed",
    "bounceUnmatched",
];
