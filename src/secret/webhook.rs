//! Signatures of webhooks: those of Standard Webhooks, and EmailEngine's.

use std::fmt;

use data_encoding::{BASE64, BASE64URL_NOPAD};

use super::hmac_sha256;

/// The secret of a webhook.
#[derive(Clone)]
pub struct WebhookSecret {
    /// As it stands in the settings: EmailEngine's key.
    text: String,
    /// The key of Standard Webhooks.
    key: Vec<u8>,
}

impl WebhookSecret {
    /// `whsec_` and base64, as Standard Webhooks has it; any other text is a key as it stands.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let key = match text.strip_prefix(PREFIX) {
            Some(encoded) => BASE64.decode(encoded.as_bytes()),
            None => Ok(text.as_bytes().to_vec()),
        };
        let key = key.map_err(|_error| "what stands behind `whsec_` is no base64")?;
        match key.len() {
            0..KEY_BYTES_MIN => Err("it is too short; give at least 16 octets"),
            _ => Ok(Self { text: text.to_owned(), key }),
        }
    }

    /// The value of `webhook-signature`: over id, timestamp (in seconds) and body.
    pub fn sign_standard(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        format!("v1,{}", BASE64.encode(&hmac_sha256(&self.key, &signed)))
    }

    /// The value of `X-EE-Wh-Signature`: over the body.
    pub fn sign_emailengine(&self, body: &[u8]) -> String {
        BASE64URL_NOPAD.encode(&hmac_sha256(self.text.as_bytes(), body))
    }
}

/// Never shows the key.
impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

const PREFIX: &str = "whsec_";
/// Octets of a key at least.
const KEY_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_standard_webhooks_is_signed_as_it_says() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            secret.sign_standard("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn emailengines_signature_is_base64url_over_the_body_alone() {
        let secret = WebhookSecret::parse("a secret of the service").unwrap();
        let signature = secret.sign_emailengine(b"{}");
        assert_eq!(signature.len(), 43);
        assert!(signature.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert_ne!(signature, secret.sign_emailengine(b"{ }"));
    }

    #[test]
    fn a_secret_that_is_none_says_why_and_none_is_shown() {
        for (text, why) in [
            ("whsec_x!", "what stands behind `whsec_` is no base64"),
            ("whsec_QUJD", "it is too short; give at least 16 octets"),
            ("short", "it is too short; give at least 16 octets"),
        ] {
            assert_eq!(WebhookSecret::parse(text).unwrap_err(), why, "{text}");
        }
        let secret = WebhookSecret::parse("a secret of the service").unwrap();
        assert!(!format!("{secret:?}").contains("service"));
    }
}
