//! Addresses inside other addresses: what BATV and SRS wrap, taken out again.
//!
//! A forwarder that rewrites senders, or a gateway that tags them, may name in a report the
//! address as it has wrapped it. Only for comparing: mail never goes to what stands here.

use std::borrow::Cow;

/// The address that BATV or SRS has wrapped, however often; any other as it is.
///
/// Read are `prvs=tag=user@domain` (draft-levine-smtp-batv), its vendors' `msprvs1=tag=user@…`
/// and `btv1==tag==user@…`, and SRS's `SRS0=hash=time=domain=user@forwarder` and
/// `SRS1=hash=forwarder==hash=time=domain=user@…` with `=`, `+` or `-` behind the tag.
pub fn unwrapped(address: &str) -> Cow<'_, str> {
    let mut address = Cow::Borrowed(address);
    for _ in 0..WRAPPINGS_MAX {
        let Some(inner) = without_batv(&address).or_else(|| without_srs(&address)) else { break };
        address = Cow::Owned(inner);
    }
    address
}

fn without_batv(address: &str) -> Option<String> {
    let is_tag = |tag: &str| {
        (1..=TAG_BYTES_MAX).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    BATV_FORMS.iter().find_map(|(scheme, separator)| {
        let rest = after_ignoring_case(address, scheme)?.strip_prefix(separator)?;
        let (tag, user) = rest.split_once(separator)?;
        (is_tag(tag) && has_user(user)).then(|| user.to_owned())
    })
}

fn without_srs(address: &str) -> Option<String> {
    let (local, _forwarder) = address.rsplit_once('@')?;
    let inner = match after_ignoring_case(local, "SRS1") {
        Some(rest) => {
            let (_hash, rest) = after_separator(rest)?.split_once('=')?;
            let (_first_forwarder, rest) = rest.split_once('=')?;
            rest
        }
        None => after_ignoring_case(local, "SRS0")?,
    };
    let (_hash, rest) = after_separator(inner)?.split_once('=')?;
    let (_time, rest) = rest.split_once('=')?;
    let (domain, user) = rest.split_once('=')?;
    (super::address::is_domain(domain) && !user.is_empty()).then(|| format!("{user}@{domain}"))
}

fn has_user(address: &str) -> bool {
    address.split_once('@').is_some_and(|(user, domain)| !user.is_empty() && !domain.is_empty())
}

fn after_separator(text: &str) -> Option<&str> {
    text.strip_prefix(['=', '+', '-'])
}

fn after_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The tags that stand in front, and what sets their parts off.
const BATV_FORMS: &[(&str, &str)] = &[("prvs", "="), ("msprvs1", "="), ("btv1", "==")];
/// Octets of the tag of BATV; the draft has ten.
const TAG_BYTES_MAX: usize = 64;
/// Wrappings of one address that are taken off.
const WRAPPINGS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_is_taken_out_and_everything_else_is_left() {
        for (address, want) in [
            ("prvs=0123456789=user@example.com", "user@example.com"),
            ("PRVS=4123abcdef=User+tag@Example.com", "User+tag@Example.com"),
            ("msprvs1=17936zqLD2fk5=user@example.com", "user@example.com"),
            ("btv1==2640cbc5f36==user@example.com", "user@example.com"),
            ("SRS0=HHHH=TT=example.com=user@forwarder.example", "user@example.com"),
            ("srs0+hH/+=2V=example.com=user@forwarder.example", "user@example.com"),
            ("SRS0-hash=TT=example.com=a=b@forwarder.example", "a=b@example.com"),
            ("SRS1=HH=first.example==hh=TT=example.com=user@second.example", "user@example.com"),
            ("SRS1-HH=first.example=+hh=TT=example.com=user@second.example", "user@example.com"),
            ("SRS0=h=T=example.com=prvs=0123456789=user@fwd.example", "user@example.com"),
            ("user@example.com", "user@example.com"),
            ("user+prvs=0123456789=x@example.com", "user+prvs=0123456789=x@example.com"),
            ("prvs=0123456789@example.com", "prvs=0123456789@example.com"),
            ("prvs=01-23=user@example.com", "prvs=01-23=user@example.com"),
            ("prvs=0123456789=@example.com", "prvs=0123456789=@example.com"),
            ("prvs==user@example.com", "prvs==user@example.com"),
            ("btv1=tag=user@example.com", "btv1=tag=user@example.com"),
            ("SRS0=HHHH=TT=example.com@fwd.example", "SRS0=HHHH=TT=example.com@fwd.example"),
            ("SRS0=HHHH=TT=no domain=user@fwd.example", "SRS0=HHHH=TT=no domain=user@fwd.example"),
            ("SRS0=HHHH=TT=example.com=@fwd.example", "SRS0=HHHH=TT=example.com=@fwd.example"),
            ("SRS2=HHHH=TT=example.com=u@fwd.example", "SRS2=HHHH=TT=example.com=u@fwd.example"),
            ("SRS0", "SRS0"),
            ("é", "é"),
            ("", ""),
        ] {
            assert_eq!(unwrapped(address), want, "{address}");
        }
    }

    #[test]
    fn wrapping_without_end_is_left_where_it_gets_silly() {
        let deep = format!("{}user@example.com", "prvs=0123456789=".repeat(9));
        let left = format!("{}user@example.com", "prvs=0123456789=".repeat(5));
        assert_eq!(unwrapped(&deep), left);
    }
}
