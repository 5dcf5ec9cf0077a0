//! The messages of SCRAM-SHA-256 (RFC 5802 §5 and §7, RFC 7677), read and written.
//!
//! No secret is known here: salt, nonce and the proofs are the service's.
//! User names are of printable ASCII, which SASLprep (RFC 4013) leaves as it is: RFC 5802 §2.2
//! lets us refuse other characters instead of implementing it, and no account has them.

use super::reply::{AUTH_ENCODING, CREDENTIALS_BAD, Canned};
use super::service::{ScramChallenge, ScramProof};
use crate::mail::base64;

/// What the client began with (`client-first-message`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFirst {
    /// Whose password it will prove to know.
    pub(crate) username: String,
    /// The client's part of the nonce.
    nonce: String,
    /// The GS2 header, which the client must repeat.
    gs2_header: String,
    /// The message without the header.
    bare: String,
}

/// An exchange in which the server has answered with salt and nonce.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Challenged {
    first: ClientFirst,
    /// Both parts of the nonce.
    nonce: String,
    /// What the server said (`server-first-message`).
    said: String,
}

impl ClientFirst {
    /// Reads the client's first message.
    ///
    /// Channel binding is not offered, so `p=` is refused and `y` is right. Nobody may act for
    /// somebody else, and `m=` asks for what we cannot do (RFC 5802 §5.1).
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Canned> {
        let text = text(message)?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(AUTH_ENCODING);
        };
        match flag {
            "n" | "y" => {}
            flag if flag.starts_with("p=") => return Err(CREDENTIALS_BAD),
            _ => return Err(AUTH_ENCODING),
        }
        let mut attributes = bare.split(',');
        let username = match attributes.next().unwrap_or_default().split_once('=') {
            Some(("n", name)) => sasl_name(name)?,
            Some(("m", _)) => return Err(CREDENTIALS_BAD),
            _ => return Err(AUTH_ENCODING),
        };
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| is_nonce(nonce)).ok_or(AUTH_ENCODING)?;
        extensions(attributes)?;
        if !authzid.is_empty() {
            let authzid = authzid.strip_prefix("a=").ok_or(AUTH_ENCODING)?;
            if sasl_name(authzid)? != username {
                return Err(CREDENTIALS_BAD);
            }
        }
        Ok(Self {
            username,
            nonce: nonce.to_owned(),
            gs2_header: format!("{flag},{authzid},"),
            bare: bare.to_owned(),
        })
    }

    /// Answers it, with what the service knows of the user.
    pub(crate) fn answer(self, challenge: &ScramChallenge) -> Challenged {
        let ScramChallenge { nonce, salt, iterations } = challenge;
        let nonce = format!("{}{nonce}", self.nonce);
        let said = format!("r={nonce},s={},i={iterations}", base64::encode(salt));
        Challenged { first: self, nonce, said }
    }
}

impl Challenged {
    /// What the server says (`server-first-message`).
    pub(crate) fn said(&self) -> &str {
        &self.said
    }

    /// Reads the client's last message (`client-final-message`): its proof, to be judged by the
    /// service.
    pub(crate) fn proof(self, message: &[u8]) -> Result<ScramProof, Canned> {
        let text = text(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(AUTH_ENCODING)?;
        let proof = base64::decode(proof.as_bytes()).ok_or(AUTH_ENCODING)?;
        let proof = proof.try_into().map_err(|_octets| AUTH_ENCODING)?;
        let mut attributes = without_proof.split(',');
        let mut value = |name: &str| {
            attributes.next().and_then(|text| text.strip_prefix(name)).ok_or(AUTH_ENCODING)
        };
        let (binding, nonce) = (value("c=")?, value("r=")?);
        extensions(attributes)?;
        if binding != base64::encode(self.first.gs2_header.as_bytes()) || nonce != self.nonce {
            return Err(CREDENTIALS_BAD);
        }
        let auth_message = format!("{},{},{without_proof}", self.first.bare, self.said);
        Ok(ScramProof { username: self.first.username, auth_message, proof })
    }
}

/// What the server says last (`server-final-message`): its own proof.
pub(crate) fn server_final(signature: &[u8]) -> String {
    format!("v={}", base64::encode(signature))
}

fn text(message: &[u8]) -> Result<&str, Canned> {
    let text = std::str::from_utf8(message).map_err(|_e| AUTH_ENCODING)?;
    let fits = text.len() <= MESSAGE_BYTES_MAX && !text.contains('\0');
    if fits { Ok(text) } else { Err(AUTH_ENCODING) }
}

/// `saslname`: `=2C` is a comma and `=3D` an equals sign, which cannot stand for themselves.
fn sasl_name(text: &str) -> Result<String, Canned> {
    let mut pieces = text.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (escaped, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            (None, None) => return Err(AUTH_ENCODING),
        };
        name.push(escaped);
        name.push_str(rest);
    }
    if name.is_empty() || name.contains(|c: char| c.is_ascii_control()) {
        return Err(AUTH_ENCODING);
    }
    if name.is_ascii() { Ok(name) } else { Err(CREDENTIALS_BAD) }
}

/// Printable ASCII but the comma.
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| (b'!'..=b'~').contains(&octet) && octet != b',')
}

/// Attributes that we do not know are passed over, if that is what they are.
fn extensions<'a>(attributes: impl Iterator<Item = &'a str>) -> Result<(), Canned> {
    for attribute in attributes {
        match attribute.split_once('=') {
            Some(("m", _)) => return Err(CREDENTIALS_BAD),
            Some((name, value))
                if name.len() == 1
                    && name.bytes().all(|octet| octet.is_ascii_alphabetic())
                    && !value.is_empty() => {}
            _ => return Err(AUTH_ENCODING),
        }
    }
    Ok(())
}

/// Octets of one message of a client: names and nonces that are in use have a tenth of it.
const MESSAGE_BYTES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    /// The service's part of the example in RFC 7677 §3.
    fn challenge() -> ScramChallenge {
        ScramChallenge {
            nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(),
            salt: base64::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
            iterations: 4096,
        }
    }

    fn challenged(gs2_header: &str) -> Challenged {
        let first = format!("{gs2_header}n=user,r=rOprNGfwEbeRWgbNEkqO");
        ClientFirst::parse(first.as_bytes()).unwrap().answer(&challenge())
    }

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn the_example_of_rfc_7677_is_read_and_written() {
        let challenged = challenged("n,,");
        let said = format!("r={NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        assert_eq!(challenged.said(), said);
        let last = format!("c=biws,r={NONCE},p={PROOF}");
        let proof = challenged.proof(last.as_bytes()).unwrap();
        assert_eq!(proof.username, "user");
        let message = format!("n=user,r=rOprNGfwEbeRWgbNEkqO,{said},c=biws,r={NONCE}");
        assert_eq!(proof.auth_message, message);
        assert_eq!(base64::encode(&proof.proof), PROOF);
        let signature = base64::decode(b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        let last = server_final(&signature);
        assert_eq!(last, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let shown = format!("{proof:?}");
        assert!(shown.contains("user") && !shown.contains("biws"), "{shown}");
    }

    #[test]
    fn a_first_message_names_one_user_and_binds_no_channel() {
        let long = "x".repeat(MESSAGE_BYTES_MAX - "n,,n=a,r=".len());
        for (message, want) in [
            ("n,,n=a,r=x", Ok("a")),
            ("y,,n=a,r=x", Ok("a")),
            ("n,a=a,n=a,r=x", Ok("a")),
            ("n,a=a=2Cb=3D,n=a=2Cb=3D,r=x", Ok("a,b=")),
            ("n,,n=a b,r=!~", Ok("a b")),
            ("n,,n=a,r=x,t=anything=at,u=all", Ok("a")),
            (&format!("n,,n=a,r={long}"), Ok("a")),
            (&format!("n,,n=a,r={long}x"), Err(AUTH_ENCODING)),
            ("p=tls-exporter,,n=a,r=x", Err(CREDENTIALS_BAD)),
            ("n,a=b,n=a,r=x", Err(CREDENTIALS_BAD)),
            ("n,,m=x,n=a,r=x", Err(CREDENTIALS_BAD)),
            ("n,,n=a,r=x,m=x", Err(CREDENTIALS_BAD)),
            ("n,,n=J\u{fc}rgen,r=x", Err(CREDENTIALS_BAD)),
            ("", Err(AUTH_ENCODING)),
            ("n,,", Err(AUTH_ENCODING)),
            ("n=a,r=x", Err(AUTH_ENCODING)),
            ("x,,n=a,r=x", Err(AUTH_ENCODING)),
            ("n,b=a,n=a,r=x", Err(AUTH_ENCODING)),
            ("n,,n=,r=x", Err(AUTH_ENCODING)),
            ("n,,n=a=2c,r=x", Err(AUTH_ENCODING)),
            ("n,,n=a=,r=x", Err(AUTH_ENCODING)),
            ("n,,n=a\u{7},r=x", Err(AUTH_ENCODING)),
            ("n,,n=a\0,r=x", Err(AUTH_ENCODING)),
            ("n,,r=x,n=a", Err(AUTH_ENCODING)),
            ("n,,n=a", Err(AUTH_ENCODING)),
            ("n,,n=a,r=", Err(AUTH_ENCODING)),
            ("n,,n=a,r=x y", Err(AUTH_ENCODING)),
            ("n,,n=a,r=\u{e9}", Err(AUTH_ENCODING)),
            ("n,,n=a,r=x,", Err(AUTH_ENCODING)),
            ("n,,n=a,r=x,tt=y", Err(AUTH_ENCODING)),
            ("n,,n=a,r=x,t=", Err(AUTH_ENCODING)),
            ("n,,n=a,r=x,1=y", Err(AUTH_ENCODING)),
        ] {
            let got = ClientFirst::parse(message.as_bytes()).map(|first| first.username);
            assert_eq!(got, want.map(str::to_owned), "{message}");
        }
        assert_eq!(ClientFirst::parse(b"n,,n=\xff,r=x"), Err(AUTH_ENCODING));
    }

    #[test]
    fn a_last_message_repeats_header_and_nonce() {
        for (gs2_header, message, want) in [
            ("n,,", format!("c=biws,r={NONCE},p={PROOF}"), None),
            ("y,,", format!("c=eSws,r={NONCE},p={PROOF}"), None),
            ("n,a=user,", format!("c=bixhPXVzZXIs,r={NONCE},p={PROOF}"), None),
            ("n,,", format!("c=biws,r={NONCE},x=y,p={PROOF}"), None),
            ("y,,", format!("c=biws,r={NONCE},p={PROOF}"), Some(CREDENTIALS_BAD)),
            ("n,,", format!("c=eSws,r={NONCE},p={PROOF}"), Some(CREDENTIALS_BAD)),
            ("n,,", format!("c=,r={NONCE},p={PROOF}"), Some(CREDENTIALS_BAD)),
            ("n,,", format!("c=biws,r={NONCE}x,p={PROOF}"), Some(CREDENTIALS_BAD)),
            ("n,,", format!("c=biws,r=rOprNGfwEbeRWgbNEkqO,p={PROOF}"), Some(CREDENTIALS_BAD)),
            ("n,,", format!("c=biws,r={NONCE},m=x,p={PROOF}"), Some(CREDENTIALS_BAD)),
            ("n,,", format!("c=biws,r={NONCE},p={PROOF},x=y"), Some(AUTH_ENCODING)),
            ("n,,", format!("c=biws,r={NONCE},x,p={PROOF}"), Some(AUTH_ENCODING)),
            ("n,,", format!("r={NONCE},c=biws,p={PROOF}"), Some(AUTH_ENCODING)),
            ("n,,", format!("c=biws,r={NONCE}"), Some(AUTH_ENCODING)),
            ("n,,", format!("c=biws,r={NONCE},p="), Some(AUTH_ENCODING)),
            ("n,,", format!("c=biws,r={NONCE},p=AAAA"), Some(AUTH_ENCODING)),
            ("n,,", format!("c=biws,r={NONCE},p=!"), Some(AUTH_ENCODING)),
            ("n,,", String::new(), Some(AUTH_ENCODING)),
        ] {
            let got = challenged(gs2_header).proof(message.as_bytes()).err();
            assert_eq!(got, want, "{gs2_header} {message}");
        }
    }
}
