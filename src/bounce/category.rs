//! The words of our classification: what kind of failure, whose fault, what to do.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word, as it stands in JSON and in rules.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The value that `word` names.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What kind of failure it is: EmailEngine's sixteen labels and five of ours.
    Category {
        /// There is no such mailbox.
        UserUnknown = "user_unknown",
        /// The address cannot exist as it is written.
        InvalidAddress = "invalid_address",
        /// The mailbox exists and is switched off.
        MailboxDisabled = "mailbox_disabled",
        /// The mailbox is over its quota.
        MailboxFull = "mailbox_full",
        /// Refused on purpose until a second try.
        Greylisting = "greylisting",
        /// Too many mails or connections in too short a time.
        RateLimited = "rate_limited",
        /// The other side is broken or out of resources.
        ServerError = "server_error",
        /// The sending IP address is on a list.
        IpBlacklisted = "ip_blacklisted",
        /// The sending country is refused.
        GeoBlocked = "geo_blocked",
        /// The sending domain or a domain in the mail is on a list.
        DomainBlacklisted = "domain_blacklisted",
        /// SPF, DKIM or DMARC failed.
        AuthFailure = "auth_failure",
        /// The server does not relay for this sender.
        RelayDenied = "relay_denied",
        /// The content was taken for spam.
        SpamBlocked = "spam_blocked",
        /// A local rule refused it.
        PolicyBlocked = "policy_blocked",
        /// The content was taken for malware.
        VirusDetected = "virus_detected",
        /// Nothing more is known.
        Unknown = "unknown",
        /// The recipient's domain does not exist or takes no mail.
        DomainNotFound = "domain_not_found",
        /// It was tried until its time was over.
        DeliveryExpired = "delivery_expired",
        /// The mail is larger than the other side takes.
        MessageTooLarge = "message_too_large",
        /// The conversation or the mail broke a rule of the protocol.
        ProtocolError = "protocol_error",
        /// The mail went in circles.
        LoopDetected = "loop_detected",
    }
}

words! {
    /// Whose fault a failure is; only the recipient's may suppress an address.
    Fault {
        /// The address or its mailbox.
        Recipient = "recipient",
        /// The sending side: its addresses, domains, configuration.
        Sender = "sender",
        /// What the mail says or carries.
        Content = "content",
        /// The machines in between.
        Infrastructure = "infrastructure",
        /// Not known.
        Unknown = "unknown",
    }
}

words! {
    /// What the app had better do.
    RecommendedAction {
        /// Stop writing to the address.
        Remove = "remove",
        /// Try again later.
        Retry = "retry",
        /// Send from another IP address.
        RetryDifferentIp = "retry_different_ip",
        /// Mend the sending side's configuration.
        FixConfiguration = "fix_configuration",
        /// Have a person look at it.
        Review = "review",
        /// Take the offending content out.
        RemoveContent = "remove_content",
    }
}

impl Category {
    /// Whose fault it is.
    pub const fn fault(self) -> Fault {
        match self {
            Self::UserUnknown
            | Self::InvalidAddress
            | Self::MailboxDisabled
            | Self::MailboxFull
            | Self::DomainNotFound => Fault::Recipient,
            Self::Greylisting
            | Self::RateLimited
            | Self::ServerError
            | Self::DeliveryExpired
            | Self::LoopDetected => Fault::Infrastructure,
            Self::IpBlacklisted
            | Self::GeoBlocked
            | Self::DomainBlacklisted
            | Self::AuthFailure
            | Self::RelayDenied
            | Self::ProtocolError => Fault::Sender,
            Self::SpamBlocked
            | Self::PolicyBlocked
            | Self::VirusDetected
            | Self::MessageTooLarge => Fault::Content,
            Self::Unknown => Fault::Unknown,
        }
    }

    /// What the app had better do about it.
    pub const fn recommended_action(self) -> RecommendedAction {
        match self {
            Self::UserUnknown
            | Self::InvalidAddress
            | Self::MailboxDisabled
            | Self::DomainNotFound => RecommendedAction::Remove,
            Self::MailboxFull
            | Self::Greylisting
            | Self::RateLimited
            | Self::ServerError
            | Self::DeliveryExpired => RecommendedAction::Retry,
            Self::IpBlacklisted | Self::GeoBlocked => RecommendedAction::RetryDifferentIp,
            Self::DomainBlacklisted
            | Self::AuthFailure
            | Self::RelayDenied
            | Self::ProtocolError
            | Self::LoopDetected => RecommendedAction::FixConfiguration,
            Self::SpamBlocked | Self::PolicyBlocked | Self::Unknown => RecommendedAction::Review,
            Self::VirusDetected | Self::MessageTooLarge => RecommendedAction::RemoveContent,
        }
    }
}
