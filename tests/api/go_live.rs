//! Lever 1: the switches, their checklist, and the trail they leave.

mod disable;
mod enable;
mod kill_switch;
mod packs;
mod switches;
mod versions;

use crate::support::{Service, Setup};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};

const ENABLE: &str = "/go-live/enable";
const DISABLE: &str = "/go-live/disable";
const ENGAGE: &str = "/go-live/kill-switch/engage";
const RELEASE: &str = "/go-live/kill-switch/release";

async fn state(service: &Service) -> Value {
    service.get("/go-live/state").await.ok()
}

/// The lever's events, newest first.
async fn events(service: &Service) -> Vec<Value> {
    let page = service.get("/go-live/events").await.ok();
    page["items"].as_array().unwrap().clone()
}

/// Engages, enables, disables or releases as an operator who gives no reason.
async fn switch(service: &Service, path: &str, actor: &str) -> Value {
    service.post(path, &json!({"actor": actor})).await.ok()
}

async fn require(packs: &[&'static str]) -> Service {
    Service::with(Setup { required_packs: packs.to_vec(), ..Setup::default() }).await
}

async fn delete_from(service: &Service, table: &str) {
    service.pool.execute(AssertSqlSafe(format!("DELETE FROM {table}"))).await.unwrap();
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// Bodies that no other route would take, and a word of the warning that each earns.
fn garbage() -> Vec<(Option<&'static str>, Vec<u8>, &'static str)> {
    const JSON: Option<&str> = Some("application/json");
    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");
    let many: Vec<String> = (0..100).map(|number| format!("\"f{number}\":1")).collect();
    vec![
        (JSON, b"{\"actor\":".to_vec(), "not a JSON object"),
        (JSON, b"}{".to_vec(), "not a JSON object"),
        (JSON, b"[]".to_vec(), "not a JSON object"),
        (JSON, b"\"kill\"".to_vec(), "not a JSON object"),
        (JSON, b"null".to_vec(), "not a JSON object"),
        (JSON, b"{\"actor\":NaN}".to_vec(), "not a JSON object"),
        (JSON, b"{\"actor\":\"\xff\"}".to_vec(), "not a JSON object"),
        (JSON, b"\x00\x01\x02".to_vec(), "not a JSON object"),
        (JSON, [b"{\"actor\":", "[".repeat(10_000).as_bytes()].concat(), "not a JSON object"),
        (JSON, b"{\"actor\":{\"name\":\"x\"}}".to_vec(), "actor"),
        (JSON, b"{\"actor\":[1,2]}".to_vec(), "actor"),
        (JSON, b"{\"actor\":\"a\\u0007b\"}".to_vec(), "actor"),
        (JSON, b"{\"actor\":\"a\\u0000b\"}".to_vec(), "actor"),
        (JSON, b"{\"reason\":\"a\\nb\"}".to_vec(), "reason"),
        (JSON, b"{\"reason\":\"\\ud800\"}".to_vec(), "reason"),
        (JSON, format!("{{\"actor\":\"{}\"}}", "a".repeat(201)).into_bytes(), "actor"),
        (JSON, format!("{{\"reason\":\"{}\"}}", "a".repeat(1001)).into_bytes(), "reason"),
        (JSON, b"{\"force\":true}".to_vec(), "force"),
        (JSON, format!("{{{}}}", many.join(",")).into_bytes(), "64"),
        (JSON, format!("{{\"reason\":\"{}\"}}", "a".repeat(65 * 1024)).into_bytes(), "65536 bytes"),
        (JSON, vec![b' '; 65 * 1024], "65536 bytes"),
        (FORM, b"actor=%zz".to_vec(), "percent-encoding"),
        (FORM, b"actor=%ff".to_vec(), "percent-encoding"),
        (FORM, b"actor=\xff".to_vec(), "UTF-8"),
        (FORM, b"actor=a%00b".to_vec(), "actor"),
        (FORM, b"actor=a&actor=b".to_vec(), "actor"),
        (None, b"actor=bryan".to_vec(), "content type"),
        (Some("text/plain"), b"stop!".to_vec(), "text/plain"),
        (Some("application/xml"), b"<stop/>".to_vec(), "application/xml"),
        (Some("application/json; charset=utf-16"), b"{}".to_vec(), "utf-16"),
        (Some("multipart/form-data; boundary=x"), b"--x--".to_vec(), "multipart"),
    ]
}
