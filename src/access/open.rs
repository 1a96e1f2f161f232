//! What the open mode refuses: everything that a web page, or a proxy that lets others in, could have sent.
//!
//! A browser on the operator's machine reaches a loopback address, and a page of any site can make it send a form there. It
//! cannot lie about the host that it thinks it asks (a name that was rebound to 127.0.0.1 is still that name), nor about where
//! the page came from. References: Fetch Metadata (W3C), the Origin header (RFC 6454), DNS rebinding (Jackson et al., 2007).

use crate::error::{Error, Result};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Headers that a proxy adds.
const FORWARDED: [&str; 6] = ["forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"];
const FORWARDED_PREFIX: &str = "x-forwarded-";

/// Whether a proxy has passed this on.
fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| FORWARDED.contains(&name.as_str()) || name.as_str().starts_with(FORWARDED_PREFIX))
}

/// Refuses what a web page of another site has sent.
pub(super) fn refuse_pages(headers: &HeaderMap) -> Result<()> {
    let foreign = |why: &str| Err(Error::ForeignRequest(why.to_owned()));
    let site = headers.get_all(FETCH_SITE).iter().find(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    if site.is_some() {
        return foreign("it comes from a page of another site");
    }
    let host = headers.get(HOST).and_then(text);
    let own = |origin: &HeaderValue| {
        let origin = text(origin).unwrap_or_default();
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| host.is_some_and(|host| host.eq_ignore_ascii_case(authority)))
    };
    if headers.get_all(ORIGIN).iter().any(|origin| !own(origin)) {
        return foreign("its Origin is another site");
    }
    Ok(())
}

/// Refuses what was not meant for a loopback address, or came through a proxy.
pub(super) fn refuse_strangers(headers: &HeaderMap) -> Result<()> {
    let mut hosts = headers.get_all(HOST).iter();
    // Without one it is HTTP/1.0, which no browser speaks.
    if let Some(host) = hosts.next()
        && !(text(host).is_some_and(is_local) && hosts.next().is_none())
    {
        return Err(Error::ForeignRequest("its Host is not a loopback address or localhost".to_owned()));
    }
    if is_forwarded(headers) {
        return Err(Error::ForeignRequest("a proxy has passed it on".to_owned()));
    }
    Ok(())
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// Whether a host, with or without a port, is this machine by its literal name.
fn is_local(host: &str) -> bool {
    if let Ok(address) = host.parse::<std::net::SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine_are_literal() {
        for own in ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000", "127.9.9.9:1"]
        {
            assert!(is_local(own), "{own}");
        }
        for foreign in [
            "",
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8000",
            "10.0.0.1:8000",
            "localhost:8000:1",
            "0.0.0.0",
            "[::]:8000",
        ] {
            assert!(!is_local(foreign), "{foreign}");
        }
    }
}
