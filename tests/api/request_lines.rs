//! Request lines as no client library would send them, on a real socket. Whatever hyper makes of them, no handler runs while the
//! gate is closed.

use crate::support::Service;
use axum::extract::Request;
use axum::{Router, ServiceExt};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Somebody else's service behind the gate, listening; every path counts.
async fn upstream(service: &Service) -> (String, Arc<AtomicUsize>) {
    let ran = Arc::new(AtomicUsize::new(0));
    let count = {
        let ran = Arc::clone(&ran);
        move || {
            ran.fetch_add(1, Ordering::SeqCst);
            std::future::ready("done")
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let gated = ServiceExt::<Request>::into_make_service(service.app.serve(Router::new().fallback(count)));
    tokio::spawn(async move { axum::serve(listener, gated).await });
    (address, ran)
}

/// Sends bytes and reads the status; 0 where the connection was closed without an answer.
async fn status(address: &str, request: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // One that is refused while it is still sent may be reset.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

const END: &str = "\r\nHost: test\r\nConnection: close\r\n\r\n";

/// The request line that replaces `GET /api/deals HTTP/1.1`.
fn lines() -> Vec<String> {
    let mut lines: Vec<String> = [
        "GET http://elsewhere/api/deals HTTP/1.1",
        "GET http://user:pass@elsewhere/api/deals HTTP/1.1",
        "GET http://elsewhere/health/../api/deals HTTP/1.1",
        "POST HTTP://TEST/api/deals HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "OPTIONS /api/deals HTTP/1.1",
        "CONNECT elsewhere:443 HTTP/1.1",
        "CONNECT /api/deals HTTP/1.1",
        "TRACE /api/deals HTTP/1.1",
        "PROPFIND /api/deals HTTP/1.1",
        "PATCH /api/deals HTTP/1.1",
        "HEAD /api/deals HTTP/1.1",
        "get /api/deals HTTP/1.1",
        "GET /api/deals#/health HTTP/1.1",
        "GET /api/deals?/health HTTP/1.1",
        "GET /api/deals?x=/docs/ HTTP/1.1",
        "GET //api/deals HTTP/1.1",
        "GET /health/../api/deals HTTP/1.1",
        "GET /docs/..%2fapi/deals HTTP/1.1",
        "GET /api\\deals HTTP/1.1",
        "GET /api/deals;x=/health HTTP/1.1",
        "GET /%2e%2e/api/deals HTTP/1.1",
        "GET /%zz HTTP/1.1",
        "GET /API/Deals HTTP/1.1",
        "GET /api/governance-evil HTTP/1.1",
        "GET /api/governance/..;/deals HTTP/1.1",
        "GET api/deals HTTP/1.1",
        "GET  /api/deals HTTP/1.1",
        "GET\t/api/deals\tHTTP/1.1",
        "GET /api/deals HTTP/9.9",
        "GET /caf\u{e9} HTTP/1.1",
    ]
    .map(str::to_owned)
    .to_vec();
    lines.push(format!("GET /{} HTTP/1.1", "a".repeat(64 * 1024)));
    lines
}

#[tokio::test]
async fn no_request_line_reaches_a_handler_while_the_gate_is_closed() {
    let service = Service::live().await;
    let (address, ran) = upstream(&service).await;
    assert_eq!(status(&address, &format!("GET /api/deals HTTP/1.1{END}")).await, 200);
    assert_eq!(ran.swap(0, Ordering::SeqCst), 1, "it is open");
    for (path, stale) in [
        ("/go-live/kill-switch/engage", false),
        ("/go-live/disable", false),
        ("/go-live/kill-switch/release", false),
        ("/go-live/enable", true),
    ] {
        service.post(path, &json!({"actor": "test"})).await.ok();
        if stale {
            service.clock.advance(2_001);
        }
        for line in lines() {
            let refused = status(&address, &format!("{line}{END}")).await;
            let shown = &line[..line.len().min(60)];
            assert!([0, 400, 403, 404, 405, 414, 431, 503, 505].contains(&refused), "{shown}: {refused} after {path}");
            assert_eq!(ran.load(Ordering::SeqCst), 0, "{shown} ran after {path}");
        }
        // Without a Host, without a version's headers, and with a body that pretends to be a request.
        for request in [
            "GET /api/deals HTTP/1.0\r\n\r\n".to_owned(),
            format!("GET /api/deals HTTP/1.1\r\nX-HTTP-Method-Override: GET\r\nX-Original-URL: /health{END}"),
            format!(
                "POST /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4{END}0\r\n\r\nGET /api/deals HTTP/1.1{END}"
            ),
            format!("POST /api/deals HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 40{END}"),
            format!("GET /api/deals HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade{END}"),
        ] {
            let before = ran.load(Ordering::SeqCst);
            let answered = status(&address, &request).await;
            let exempt = request.starts_with("POST /health") && answered == 200;
            assert_eq!(ran.load(Ordering::SeqCst) - before, usize::from(exempt), "{request:?}: {answered}");
            ran.store(0, Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn a_smuggled_second_request_is_gated_as_well() {
    let service = Service::fresh().await;
    let (address, ran) = upstream(&service).await;
    let both = format!("GET /health HTTP/1.1\r\nHost: test\r\n\r\nGET /api/deals HTTP/1.1{END}");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(both.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(ran.load(Ordering::SeqCst), 1, "/health is exempt, and the upstream's own: {answers}");
    assert!(answers.contains("403 Forbidden"), "{answers}");
}

/// The header that a token's file with CRLF produces. The answer is hyper's own, so docs/ERRORS.md names its cause.
#[tokio::test]
async fn a_carriage_return_after_a_token_is_a_bare_400_and_reaches_no_handler() {
    let service = Service::live().await;
    let (address, ran) = upstream(&service).await;
    for value in ["hf_1_secret\r", "\rhf_1_secret", "hf_1_\rsecret"] {
        let refused = status(&address, &format!("GET /api/deals HTTP/1.1\r\nAuthorization: Bearer {value}{END}")).await;
        assert_eq!((refused, ran.load(Ordering::SeqCst)), (400, 0), "{value:?}");
    }
}
