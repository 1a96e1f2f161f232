//! The open mode lets in this machine's operator, and no web page and no proxy.

use crate::support::{BASE, Service, Setup, request};
use axum::http::{HeaderName, Method};
use holdfast::access::guard::Exposure;
use holdfast::access::open::Hosts;

async fn send(
    service: &Service,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
    form: bool,
) -> (u16, String) {
    let (content_type, body) = if form { (Some("text/plain"), "actor=page") } else { (None, "") };
    let mut request = request(method, path, content_type, body);
    for (name, value) in headers {
        request.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
    }
    let answer = service.send(request).await;
    (answer.status.as_u16(), answer.json["error"].as_str().unwrap_or_default().to_owned())
}

const HOST: (&str, &str) = ("host", "127.0.0.1:8000");

/// The requests of a page of another site, of a rebound name, and of a proxy.
const FOREIGN: [&[(&str, &str)]; 23] = [
    &[("host", "evil.example:8000")],
    &[("host", "evil.example")],
    &[("host", "127.0.0.1.evil.example:8000")],
    &[HOST, ("origin", "http://evil.example")],
    &[HOST, ("origin", "null")],
    &[HOST, ("origin", "http://127.0.0.1:9000")],
    &[("host", "evil.example:8000"), ("origin", "http://evil.example:8000")],
    &[HOST, ("sec-fetch-site", "cross-site")],
    &[HOST, ("sec-fetch-site", "same-site")],
    &[HOST, ("x-forwarded-for", "10.0.0.1")],
    &[HOST, ("x-forwarded-host", "127.0.0.1")],
    &[HOST, ("forwarded", "for=10.0.0.1")],
    &[HOST, ("x-real-ip", "10.0.0.1")],
    &[HOST, ("via", "1.1 proxy")],
    &[HOST, ("cf-connecting-ip", "10.0.0.1")],
    &[HOST, ("true-client-ip", "10.0.0.1")],
    &[HOST, ("x-client-ip", "10.0.0.1")],
    &[HOST, ("x-original-forwarded-for", "10.0.0.1")],
    &[HOST, ("cdn-loop", "cdn.example")],
    &[HOST, ("x-amzn-trace-id", "Root=1")],
    &[HOST, ("x-envoy-external-address", "10.0.0.1")],
    &[HOST, ("x-request-start", "t=1")],
    &[HOST, ("proxy-connection", "keep-alive")],
];

const OWN: [&[(&str, &str)]; 6] = [
    &[],
    &[HOST],
    &[("host", "localhost:8000")],
    &[("host", "[::1]:8000")],
    &[HOST, ("origin", "http://127.0.0.1:8000"), ("sec-fetch-site", "same-origin")],
    &[HOST, ("sec-fetch-site", "none")],
];

#[tokio::test]
async fn no_page_and_no_proxy_moves_a_switch_or_reads_a_thing() {
    let service = Service::live().await;
    let before = service.everything().await;
    for headers in FOREIGN {
        for (method, path) in [
            (Method::POST, "/go-live/kill-switch/engage"),
            (Method::POST, "/go-live/disable"),
            (Method::POST, "/access/tokens"),
            (Method::POST, "/risk/check-and-reserve"),
            (Method::GET, "/go-live/state"),
            (Method::GET, "/review"),
        ] {
            for form in [false, true] {
                let (status, code) = send(&service, method.clone(), &format!("{BASE}{path}"), headers, form).await;
                assert_eq!((status, &*code), (403, "FOREIGN_REQUEST"), "{method} {path} {headers:?}");
            }
        }
    }
    assert_eq!(service.everything().await, before);
    // A proxy that adds nothing asks in HTTP/1.0 and says a Host, which no page and no operator's client does.
    let mut bare = request(Method::POST, &format!("{BASE}/go-live/kill-switch/engage"), None, "");
    *bare.version_mut() = axum::http::Version::HTTP_10;
    bare.headers_mut().insert("host", HOST.1.parse().unwrap());
    service.send(bare).await.refused(403, "FOREIGN_REQUEST");
    // A whole address is what one asks a proxy for.
    let whole = format!("http://127.0.0.1:8000{BASE}/go-live/state");
    service.send(request(Method::GET, &whole, None, "")).await.refused(403, "FOREIGN_REQUEST");
    // Two hosts are two stories.
    let mut two = request(Method::GET, &format!("{BASE}/go-live/state"), None, "");
    two.headers_mut().append("host", "localhost".parse().unwrap());
    two.headers_mut().append("host", "evil.example".parse().unwrap());
    service.send(two).await.refused(403, "FOREIGN_REQUEST");
}

#[tokio::test]
async fn this_machines_operator_is_let_in() {
    let service = Service::live().await;
    for headers in OWN {
        let (status, code) = send(&service, Method::GET, &format!("{BASE}/go-live/state"), headers, false).await;
        assert_eq!((status, &*code), (200, ""), "{headers:?}");
        let engage = format!("{BASE}/go-live/kill-switch/engage");
        assert_eq!(send(&service, Method::POST, &engage, headers, false).await.0, 200, "{headers:?}");
    }
    // Without a Host it is a client as simple as can be.
    let mut simple = request(Method::GET, &format!("{BASE}/go-live/state"), None, "");
    *simple.version_mut() = axum::http::Version::HTTP_10;
    service.send(simple).await.ok();
}

#[tokio::test]
async fn probes_answer_whoever_asks_and_a_proxys_check_may_come_from_a_proxy() {
    let service = Service::live().await;
    for headers in FOREIGN {
        for path in ["/livez", "/health", "/readyz", "/openapi.json", "/docs/"] {
            assert_eq!(send(&service, Method::GET, path, headers, false).await.0, 200, "{path} {headers:?}");
        }
        // They learn that it is there, and no more.
        let mut ready = request(Method::GET, "/readyz", None, "");
        for (name, value) in headers {
            ready.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        assert_eq!(service.send(ready).await.ok(), serde_json::json!({"ready": true}), "{headers:?}");
        assert_eq!(send(&service, Method::GET, "/metrics", headers, false).await.0, 403, "{headers:?}");
        let mut check = headers.to_vec();
        check.extend([("x-original-uri", "/x"), ("x-original-method", "GET")]);
        let path = format!("{BASE}/authz/nginx");
        assert_eq!(send(&service, Method::GET, &path, &check, false).await.0, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn from_elsewhere_nobody_is_let_in_without_a_token_unless_that_is_meant() {
    let network = Service::with(Setup { exposure: Exposure::Network, ..Setup::default() }).await;
    network.get("/go-live/state").await.refused(401, "UNAUTHENTICATED");
    network.get_root("/metrics").await.refused(401, "UNAUTHENTICATED");
    let insecure = Service::with(Setup { exposure: Exposure::Insecure, ..Setup::default() }).await;
    let state = format!("{BASE}/go-live/state");
    let send = async |headers: &[(&'static str, &str)]| send(&insecure, Method::GET, &state, headers, false).await.0;
    // By its address, and through whichever proxy; but no page.
    assert_eq!(send(&[("host", "10.0.0.5:8000"), ("x-forwarded-for", "10.0.0.1")]).await, 200);
    assert_eq!(send(&[("host", "10.0.0.5:8000"), ("origin", "http://evil.example")]).await, 403);
    assert_eq!(send(&[("sec-fetch-site", "cross-site")]).await, 403);
}

#[tokio::test]
async fn a_name_that_was_rebound_to_an_insecure_address_reaches_nothing_unless_it_is_named() {
    let hosts = Hosts::new(vec!["holdfast.internal".parse().unwrap()]);
    let insecure = Service::with(Setup { exposure: Exposure::Insecure, hosts, ..Setup::default() }).await;
    let engage = format!("{BASE}/go-live/kill-switch/engage");
    let send = async |headers: &[(&'static str, &str)]| {
        let (status, code) = send(&insecure, Method::POST, &engage, headers, true).await;
        if status == 200 { "done".to_owned() } else { code }
    };
    // The page's own name, so that its Origin is the same.
    for host in ["evil.com", "evil.com:8000", "EVIL.com.", "holdfast.internal.evil.com", "", "localhost.evil.com:8000"]
    {
        let origin = format!("http://{host}");
        assert_eq!(send(&[("host", host), ("origin", &origin)]).await, "FOREIGN_REQUEST", "{host}");
        assert_eq!(send(&[("host", host)]).await, "FOREIGN_REQUEST", "{host}");
    }
    for host in
        ["holdfast.internal", "HOLDFAST.internal.:8000", "localhost:8000", "[::1]", "[fe80::1]:8000", "192.168.1.9:80"]
    {
        assert_eq!(send(&[("host", host)]).await, "done", "{host}");
    }
    // HTTP/1.0, which no browser speaks.
    assert_eq!(send(&[]).await, "done");
}

#[tokio::test]
async fn the_counters_answer_this_machine_alone() {
    let service = Service::live().await;
    super::token(&service, "read").await;
    for (headers, status) in [(&[HOST][..], 200), (&[HOST, ("x-forwarded-for", "10.0.0.1")][..], 401)] {
        assert_eq!(send(&service, Method::GET, "/metrics", headers, false).await.0, status, "{headers:?}");
    }
    let network = Service::on(service.options.clone(), Setup { exposure: Exposure::Network, ..Setup::default() }).await;
    network.get_root("/metrics").await.refused(401, "UNAUTHENTICATED");
}
