//! Who may ask for what.
//!
//! The tokens file is re-read when it changes; a revoked token is dead at the next request.
//! A route is reached with a [`Caller`], which alone knows what it may be shown: it is asked
//! about every mail, report and list before anything of it is answered.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use super::error::ApiError;
use super::tokens::{Scope, Token, TokenFile, Version};
use crate::mail::Timestamp;
use crate::secret::sha256_hex;

/// Who may ask without a token, and which tokens there are.
#[derive(Debug)]
pub struct Auth {
    file: TokenFile,
    policy: Policy,
    cached: Mutex<Cached>,
}

/// Whether tokens are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// They are; without a tokens file, loopback may read without one.
    Tokens,
    /// Any token is good and none is needed: `rebound dev`.
    AnyToken,
}

/// Who wants to be let in.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The token that came with the request.
    pub token: Option<&'a str>,
    /// Where it came from.
    pub peer: IpAddr,
    /// What it called us.
    pub host: Option<&'a str>,
}

/// Who was let in, and what is his to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The name of the token.
    token: Option<String>,
    /// The only account that it is for.
    account: Option<String>,
}

/// Why somebody may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A token is needed and none was given.
    NoToken,
    /// No token is configured, so that only loopback may ask.
    NotLoopback,
    /// The token is not known.
    UnknownToken,
    /// The token was good for a time that is over.
    Expired,
    /// The token is known and not good for this.
    Scope,
    /// The tokens file cannot be read.
    Unreadable,
}

#[derive(Debug, Default)]
struct Cached {
    /// `None` as well where there is no file.
    version: Option<Version>,
    read: Read,
}

/// What was found in the tokens file.
#[derive(Debug, Default)]
enum Read {
    /// It could not be read, or was not yet.
    #[default]
    Nothing,
    /// There is none.
    NoFile,
    /// Its tokens.
    Tokens(Vec<Token>),
}

impl Caller {
    /// The one account that is shown to him and that he submits for; `None` for all.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// Whether something of `account` may be shown to him.
    pub fn may_see(&self, account: &str) -> bool {
        self.account().is_none_or(|own| own == account)
    }

    /// Whose things he asks for: of the account he names, else of the only one that is his, else
    /// of all (`None`).
    ///
    /// # Errors
    /// 403 when his token is for another account.
    pub fn asks_of(&self, account: Option<&str>) -> Result<Option<String>, ApiError> {
        match account {
            Some(account) if !self.may_see(account) => {
                let why = format!("The token is not for the account `{account}`");
                Err(ApiError::Forbidden(why))
            }
            named => Ok(named.or(self.account()).map(str::to_owned)),
        }
    }

    /// The name of the token he came with, where one was asked for.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

impl Auth {
    /// Checks against the tokens in `file`.
    pub fn new(file: TokenFile, policy: Policy) -> Self {
        Self { file, policy, cached: Mutex::default() }
    }

    /// Whether any token is good, and any account has one: `rebound dev`.
    pub fn takes_any_token(&self) -> bool {
        self.policy == Policy::AnyToken
    }

    /// Whether who `asked` may do what needs `scope`.
    ///
    /// # Errors
    /// With the reason when not.
    pub fn allow(&self, asked: Asked<'_>, scope: Scope, now: Timestamp) -> Result<Caller, Denied> {
        if self.policy == Policy::AnyToken {
            return Ok(Caller::default());
        }
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut cached);
        let tokens = match &cached.read {
            Read::Nothing => return Err(Denied::Unreadable),
            Read::NoFile => return without_tokens(asked, scope),
            Read::Tokens(tokens) => tokens,
        };
        let hash = sha256_hex(asked.token.ok_or(Denied::NoToken)?.as_bytes());
        // All are compared, so that the time does not tell which one fits.
        let mut found = None;
        for known in tokens {
            if known.is(&hash) {
                found = Some(known);
            }
        }
        let Token { name, grant, .. } = found.ok_or(Denied::UnknownToken)?;
        if grant.is_expired(now) {
            return Err(Denied::Expired);
        }
        if !grant.has(scope) {
            return Err(Denied::Scope);
        }
        Ok(Caller { token: Some(name.clone()), account: grant.account.clone() })
    }

    /// Reads the file again when it has changed since.
    fn refresh(&self, cached: &mut Cached) {
        let version = self.file.version();
        let is_read = !matches!(cached.read, Read::Nothing);
        if is_read && version == cached.version {
            return;
        }
        match self.file.read() {
            Ok(tokens) => {
                *cached = Cached { version, read: tokens.map_or(Read::NoFile, Read::Tokens) }
            }
            Err(error) => {
                // Until it can be read nobody is let in: it may just have been a revocation.
                tracing::error!(%error, "the tokens cannot be read; nobody is let in");
                cached.read = Read::Nothing;
            }
        }
    }
}

/// Loopback may read. The name it asked for must be an address or `localhost` too: otherwise a
/// web page could ask through a browser here, by a name that it has made lead to loopback.
fn without_tokens(asked: Asked<'_>, scope: Scope) -> Result<Caller, Denied> {
    let is_local_name = asked.host.is_none_or(|host| {
        let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        let name = name.map_or(host, |(name, _port)| name);
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        name.eq_ignore_ascii_case("localhost") || address.is_ok()
    });
    if !asked.peer.to_canonical().is_loopback() || !is_local_name {
        return Err(Denied::NotLoopback);
    }
    if scope == Scope::Admin { Err(Denied::NoToken) } else { Ok(Caller::default()) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Dir;
    use super::super::tokens::Grant;
    use super::*;
    use std::time::Duration;

    const LOOPBACK: &str = "127.0.0.1";
    const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);

    fn allow(auth: &Auth, token: Option<&str>, peer: &str, scope: Scope) -> Result<(), Denied> {
        let asked = Asked { token, peer: peer.parse().unwrap(), host: None };
        auth.allow(asked, scope, NOW).map(drop)
    }

    #[test]
    fn without_tokens_only_loopback_by_its_own_name_may_read() {
        let dir = Dir::new();
        let auth = Auth::new(dir.tokens(), Policy::Tokens);
        for (peer, host, want) in [
            (LOOPBACK, None, Ok(())),
            (LOOPBACK, Some("127.0.0.1:8025"), Ok(())),
            (LOOPBACK, Some("localhost:8025"), Ok(())),
            (LOOPBACK, Some("LOCALHOST"), Ok(())),
            ("::1", Some("[::1]:8025"), Ok(())),
            ("::1", Some("[::1]"), Ok(())),
            ("::ffff:127.0.0.1", None, Ok(())),
            (LOOPBACK, Some("evil.example:8025"), Err(Denied::NotLoopback)),
            (LOOPBACK, Some("localhost.evil.example"), Err(Denied::NotLoopback)),
            ("192.0.2.1", Some("localhost"), Err(Denied::NotLoopback)),
            ("0.0.0.0", None, Err(Denied::NotLoopback)),
        ] {
            let asked = Asked { token: None, peer: peer.parse().unwrap(), host };
            let got = auth.allow(asked, Scope::Read, NOW).map(drop);
            assert_eq!(got, want, "{peer} {host:?}");
        }
        assert_eq!(allow(&auth, None, LOOPBACK, Scope::Submit), Ok(()));
        assert_eq!(allow(&auth, None, LOOPBACK, Scope::Admin), Err(Denied::NoToken));
        assert_eq!(allow(&auth, Some("x"), LOOPBACK, Scope::Read), Ok(()));
    }

    #[test]
    fn a_token_is_good_for_its_scopes_until_it_is_revoked() {
        let dir = Dir::new();
        let tokens = dir.tokens();
        let reader = tokens.add("app", &[Scope::Read], NOW).unwrap();
        let admin = tokens.add("ops", &[Scope::Admin], NOW).unwrap();
        let auth = Auth::new(dir.tokens(), Policy::Tokens);
        for (token, scope, want) in [
            (Some(reader.as_str()), Scope::Read, Ok(())),
            (Some(reader.as_str()), Scope::Submit, Err(Denied::Scope)),
            (Some(admin.as_str()), Scope::Submit, Ok(())),
            (Some("rebound_00"), Scope::Read, Err(Denied::UnknownToken)),
            (Some(""), Scope::Read, Err(Denied::UnknownToken)),
            (None, Scope::Read, Err(Denied::NoToken)),
        ] {
            assert_eq!(allow(&auth, token, LOOPBACK, scope), want, "{token:?} {scope:?}");
        }
        tokens.revoke("app").unwrap();
        assert_eq!(
            allow(&auth, Some(&reader), LOOPBACK, Scope::Read),
            Err(Denied::UnknownToken),
            "a revoked token is dead at the next request"
        );
        assert_eq!(allow(&auth, Some(&admin), "192.0.2.1", Scope::Read), Ok(()));
        tokens.revoke("ops").unwrap();
        assert_eq!(
            allow(&auth, None, LOOPBACK, Scope::Read),
            Err(Denied::NoToken),
            "revoking the last token opens nothing"
        );
    }

    #[test]
    fn a_token_ends_with_its_time_and_shows_its_account_alone() {
        let dir = Dir::new();
        let expires = NOW.plus(Duration::from_secs(1));
        let account = Some("shop".to_owned());
        let grant = Grant { account, expires: Some(expires), ..Grant::of(&[Scope::Read]) };
        let secret = dir.tokens().add("app", grant, NOW).unwrap();
        let auth = Auth::new(dir.tokens(), Policy::Tokens);
        let peer = LOOPBACK.parse().unwrap();
        let asked = Asked { token: Some(&secret), peer, host: None };
        let caller = auth.allow(asked, Scope::Read, NOW).unwrap();
        assert_eq!((caller.account(), caller.token()), (Some("shop"), Some("app")));
        assert!(caller.may_see("shop") && !caller.may_see("default") && !caller.may_see(""));
        assert_eq!(auth.allow(asked, Scope::Read, expires), Err(Denied::Expired));
        assert!(Caller::default().may_see("shop"));
    }

    #[test]
    fn a_damaged_file_lets_nobody_in() {
        let dir = Dir::new();
        std::fs::write(dir.path().join("tokens"), "app read then 00\n").unwrap();
        let auth = Auth::new(dir.tokens(), Policy::Tokens);
        assert_eq!(allow(&auth, None, LOOPBACK, Scope::Read), Err(Denied::Unreadable));
    }

    #[test]
    fn in_dev_any_token_and_none_are_good() {
        let dir = Dir::new();
        let auth = Auth::new(dir.tokens(), Policy::AnyToken);
        assert_eq!(allow(&auth, Some("secret123"), "192.0.2.1", Scope::Admin), Ok(()));
        assert_eq!(allow(&auth, None, LOOPBACK, Scope::Submit), Ok(()));
    }
}
