//! The requests that the open mode refuses: those that a web page, or a proxy for other clients, could have sent.
//!
//! A browser on the operator's machine reaches a loopback address, and a page of any site can make it send a form
//! there. The browser cannot lie about the host in the request (a name that was rebound to 127.0.0.1 is still that
//! name), nor about the origin of the page. References: Fetch Metadata (W3C), the Origin header (RFC 6454), DNS
//! rebinding (Jackson et al., 2007).

use crate::error::{Error, Result};
use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use std::net::IpAddr;
use std::str::FromStr;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The headers that proxies add.
const FORWARDED: [&str; 22] = [
    "forwarded",
    "via",
    "cdn-loop",
    "max-forwards",
    "proxy-authorization",
    "proxy-connection",
    "surrogate-capability",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-ray",
    "fastly-client-ip",
    "fly-client-ip",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-proxyuser-ip",
    "x-remote-addr",
    "x-request-start",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "x-scheme",
    "x-varnish",
];
const FORWARDED_PREFIXES: [&str; 5] = ["x-forwarded", "x-original-", "x-envoy-", "x-arr-", "x-azure-"];

/// Whether a proxy has visibly passed this request on: by its headers, or by a form that only proxies use. Such forms
/// are HTTP/1.0 with a Host, which is nginx's default, and a whole address as the target.
fn is_forwarded(asked: &Asked<'_>) -> bool {
    let of_a_proxy =
        |name: &str| FORWARDED.contains(&name) || FORWARDED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    asked.headers.keys().any(|name| of_a_proxy(name.as_str()))
        || (asked.version <= Version::HTTP_10 && asked.headers.contains_key(HOST))
        || asked.uri.authority().is_some()
}

/// The form of a request, without its target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) headers: &'a HeaderMap,
    version: Version,
    uri: &'a Uri,
}

impl<'a> Asked<'a> {
    pub(super) fn of(request: &'a Request) -> Self {
        Self { headers: request.headers(), version: request.version(), uri: request.uri() }
    }
}

/// Refuses a request from a web page of another site.
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

/// The names of this service in open mode, besides its own (`ALLOWED_HOSTS`).
#[derive(Debug, Clone, Default)]
pub struct Hosts(Vec<Host>);

/// A name of this service, as in a `Host` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(String);

impl FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = name_of(text.trim());
        let is_name =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        if name.is_empty() || !(is_name(&name) || name.parse::<IpAddr>().is_ok()) {
            return Err("is not the name of a host: separate names with commas, such as holdfast.internal,10.0.0.5");
        }
        Ok(Self(name))
    }
}

impl Hosts {
    /// These names, besides the service's own.
    #[must_use]
    pub const fn new(named: Vec<Host>) -> Self {
        Self(named)
    }

    fn name(&self, host: &str) -> bool {
        self.0.iter().any(|named| named.0 == host)
    }

    /// Refuses a request that was not meant for a loopback address, or came through a proxy.
    pub(super) fn refuse_strangers(&self, asked: Asked<'_>) -> Result<()> {
        let is_loopback = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        refuse_host(asked.headers, "a loopback address or localhost", |host| is_loopback(host) || self.name(host))?;
        if is_forwarded(&asked) {
            return Err(Error::ForeignRequest("a proxy has passed it on".to_owned()));
        }
        Ok(())
    }

    /// Refuses a request for another name, since a page whose name was rebound to this address still asks for that
    /// name. An IP address is accepted: it was not looked up, so it cannot have been rebound, and behind a published
    /// port it may be another machine's.
    pub(super) fn refuse_names(&self, headers: &HeaderMap) -> Result<()> {
        let is_own = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok() || self.name(host);
        refuse_host(headers, "an address, localhost or one of ALLOWED_HOSTS", is_own)
    }
}

fn refuse_host(headers: &HeaderMap, what: &str, is_own: impl Fn(&str) -> bool) -> Result<()> {
    let mut hosts = headers.get_all(HOST).iter();
    // Without a Host the request is HTTP/1.0, which no browser uses.
    if let Some(host) = hosts.next()
        && !(text(host).is_some_and(|host| is_own(&name_of(host))) && hosts.next().is_none())
    {
        return Err(Error::ForeignRequest(format!("its Host is not {what}")));
    }
    Ok(())
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// The name in a `Host` header, in lower case, without its port, the brackets of an IPv6 address and the dot of the
/// root.
fn name_of(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if (!name.contains(':') || name.ends_with(']')) && port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str) -> HeaderMap {
        HeaderMap::from_iter([(HOST, host.parse().unwrap())])
    }

    fn strangers(hosts: &Hosts, host: &str) -> Result<()> {
        let uri = Uri::from_static("/");
        hosts.refuse_strangers(Asked { headers: &asked(host), version: Version::HTTP_11, uri: &uri })
    }

    #[test]
    fn hosts_of_this_machine_are_literal() {
        let hosts = Hosts::default();
        for own in [
            "localhost",
            "LOCALHOST:8000",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:8000",
            "[::1]",
            "[::1]:8000",
            "127.9.9.9:1",
        ] {
            assert!(strangers(&hosts, own).is_ok() && hosts.refuse_names(&asked(own)).is_ok(), "{own}");
        }
        for foreign in [
            "",
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8000",
            "localhost:8000:1",
            "0x7f000001",
            "127.1",
        ] {
            assert!(strangers(&hosts, foreign).is_err(), "{foreign}");
            assert!(hosts.refuse_names(&asked(foreign)).is_err(), "{foreign}");
        }
        for elsewhere in ["10.0.0.1:8000", "0.0.0.0", "[::]:8000", "[fe80::1]:8000"] {
            assert!(strangers(&hosts, elsewhere).is_err(), "{elsewhere}");
            assert!(hosts.refuse_names(&asked(elsewhere)).is_ok(), "{elsewhere}");
        }
    }

    #[test]
    fn a_host_that_is_named_is_one_in_any_case_with_any_port() {
        let hosts = Hosts::new(vec!["Holdfast.internal:8000".parse().unwrap()]);
        for own in ["holdfast.internal", "HOLDFAST.internal.:9000"] {
            assert!(hosts.refuse_names(&asked(own)).is_ok() && strangers(&hosts, own).is_ok(), "{own}");
        }
        assert!(hosts.refuse_names(&asked("a.holdfast.internal")).is_err());
        for none in ["", "*", "*.internal", "a b", "http://a", "a/b"] {
            assert!(none.parse::<Host>().is_err(), "{none}");
        }
    }
}
