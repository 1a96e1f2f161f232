//! The Monday review: its members, what it says to look at first, and the success metrics over a scripted week.

use crate::support::{BASE, Service, request};
use axum::http::Method;
use serde_json::{Value, json};

mod first;

/// Moves the database's time to this instant, give or take the time that passes until it is read.
pub async fn at(service: &Service, instant: &str) {
    let skew: String = sqlx::query_scalar("SELECT ($1::text::timestamptz - test_now())::text")
        .bind(instant)
        .fetch_one(&service.pool)
        .await
        .expect("it can be done");
    service.set_skew(&skew).await;
}

/// Stops the database's time, so that spans come out exact; `at` then moves it from one instant to the next.
async fn stop_the_clock(service: &Service) {
    let sql = "CREATE TABLE test_stopped (at timestamptz NOT NULL);
         INSERT INTO test_stopped VALUES (test_now());
         CREATE OR REPLACE FUNCTION holdfast_now() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS 'SELECT at FROM test_stopped'";
    sqlx::raw_sql(sql).execute(&service.pool).await.expect("it can be done");
}

/// Moves the stopped clock, and this service's own as far ahead, so that it is time that passes and not a clock that jumps.
async fn stopped_at(service: &Service, instant: &str) {
    let ahead_ms: i64 = sqlx::query_scalar(
        "SELECT GREATEST(0, extract(epoch FROM $1::text::timestamptz - at) * 1000)::bigint FROM test_stopped",
    )
    .bind(instant)
    .fetch_one(&service.pool)
    .await
    .expect("it can be read");
    sqlx::query("UPDATE test_stopped SET at = $1::text::timestamptz")
        .bind(instant)
        .execute(&service.pool)
        .await
        .expect("it can be done");
    service.clock.advance(ahead_ms.unsigned_abs());
    service.app.feed.refresh(&service.db).await.expect("the state can be read");
}

async fn review(service: &Service) -> Value {
    service.get("/review").await.ok()
}

async fn look_first(service: &Service) -> Vec<String> {
    let first = review(service).await["look_first"].take();
    serde_json::from_value(first).expect("a list of sentences")
}

/// A wire that judges 10 recent events by the 10 before them.
async fn wire(service: &Service, domain: &str, more: Value) {
    let mut body = json!({
        "domain": domain, "metric": "m", "window_events": 10, "baseline_events": 10, "min_events_to_enforce": 10, "enabled": true,
    });
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    service.post("/regression/policies/upsert", &body).await.ok();
}

async fn kpi(service: &Service, domain: &str, success: bool) -> Value {
    let body = json!({"domain": domain, "metric": "m", "success": success, "actor": "shop"});
    service.post("/regression/kpi", &body).await.ok()
}

/// 19 successes, then a failure: a drop of 0.1 against ten of ten.
async fn a_tenth_down(service: &Service, domain: &str) {
    for number in 1..=20 {
        kpi(service, domain, number < 20).await;
    }
}

async fn markdown(service: &Service, path: &str, accept: Option<&str>) -> (String, String) {
    let mut request = request(Method::GET, &format!("{BASE}{path}"), None, "");
    if let Some(accept) = accept {
        request.headers_mut().insert("accept", accept.parse().expect("it can be done"));
    }
    let answer = service.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let content_type = answer.headers["content-type"].to_str().expect("it can be done").to_owned();
    (content_type, answer.text)
}

#[tokio::test]
async fn the_review_has_all_its_parts() {
    let service = Service::live().await;
    let review = review(&service).await;
    let members: Vec<&String> = review.as_object().unwrap().keys().collect();
    let mut expected = vec![
        "generated_at",
        "since",
        "open_mode",
        "grade_themselves",
        "look_first",
        "missing",
        "more",
        "answering",
        "instances",
        "state",
        "approvals",
        "changes",
        "ledger",
        "week",
        "week_before",
        "denials",
        "old_holds",
        "ledger_halted_at",
        "ledger_differences",
        "clock_behind_seconds",
        "clock_behind_accepted",
        "not_enforcing",
        "disabled_engines",
        "tripped",
        "near_tripping",
        "scorecards",
        "shadow_tripped",
        "silent",
        "unwatched",
        "blind_wires",
        "charter",
        "audit",
        "checkpoint",
        "slo",
    ];
    expected.sort_unstable();
    let mut members = members.iter().map(|name| name.as_str()).collect::<Vec<_>>();
    members.sort_unstable();
    assert_eq!(members, expected);
    assert_eq!(review["state"]["go_live_enabled"], true);
    assert_eq!(review["ledger"].as_array().unwrap().len(), 4);
    assert_eq!(review["scorecards"].as_array().unwrap().len(), 4);
    assert_eq!(review["disabled_engines"][0]["engine"], "NOTIFY");
    let streams: Vec<&Value> = review["audit"].as_array().unwrap().iter().map(|head| &head["stream"]).collect();
    assert_eq!(json!(streams), json!(["control", "heimdall", "kpi", "risk"]));
    for (name, target) in [
        ("go_live_uptime", ">= 99.9 %"),
        ("denial_rate", "< 5 %"),
        ("false_alarm_share", "< 10 %"),
        ("time_to_remediate", "< 2 h"),
        ("sandbox_success_rate", "> 80 %"),
    ] {
        assert_eq!(review["slo"][name]["target"], target, "{name}");
    }
}

#[tokio::test]
async fn a_review_writes_nothing() {
    let service = Service::live().await;
    let before = service.events().await;
    review(&service).await;
    markdown(&service, "/review?format=markdown", None).await;
    assert_eq!(service.events().await, before);
}

#[tokio::test]
async fn nothing_needs_attention_when_all_is_well() {
    let service = Service::live().await;
    assert_eq!(service.reserve("WHOLESALE", "100").await.ok()["ok"], true);
    assert_eq!(look_first(&service).await, Vec::<String>::new());
    let (_, text) = markdown(&service, "/review?format=markdown", None).await;
    assert!(text.contains("## Look at this first\n\nNothing needs attention.\n"), "{text}");
}

#[tokio::test]
async fn a_fresh_install_says_that_go_live_is_off() {
    let service = Service::fresh().await;
    assert_eq!(look_first(&service).await, ["Go-live is off: every reserve is denied"]);
    let slo = review(&service).await["slo"].take();
    for name in ["go_live_uptime", "denial_rate", "false_alarm_share", "time_to_remediate", "sandbox_success_rate"] {
        assert_eq!(json!([slo[name]["value"], slo[name]["met"]]), json!([null, null]), "{name}");
    }
    assert_eq!(slo["go_live_uptime"]["detail"], "go-live was never enabled");
}

#[tokio::test]
async fn what_is_worst_comes_first() {
    let service = Service::live().await;
    wire(&service, "WHOLESALE", json!({"max_drop_fraction": 0.1})).await;
    a_tenth_down(&service, "WHOLESALE").await;
    let engage = json!({"actor": "ops", "reason": "fire"});
    service.post("/go-live/kill-switch/engage", &engage).await.ok();
    service.post("/go-live/disable", &json!({"actor": "ops"})).await.ok();
    let trip = review(&service).await["tripped"][0]["trip_id"].take();
    let first = look_first(&service).await;
    assert_eq!(
        first.get(..4).unwrap_or_default(),
        [
            "The kill switch is engaged, by UNAUTHENTICATED (says ops): fire",
            "Go-live is off: every reserve is denied",
            "WHOLESALE.m has tripped and is not re-armed: TRIGGERED drop=0.100 action=THROTTLE",
            &format!("WHOLESALE is off, by trip {trip}: Regression tripwire: WHOLESALE.m drop=0.100"),
        ],
        "{first:?}"
    );
}

#[tokio::test]
async fn global_off_and_a_loss_at_its_cap_need_attention() {
    let service = Service::live().await;
    let lost = "engine=WHOLESALE&reserved_amount=0&realized_loss=200";
    service.reserve("WHOLESALE", "10").await.ok();
    service.post_form("/risk/settle", &lost.replace("amount=0", "amount=10")).await.ok();
    let off = json!({"engine": "GLOBAL", "enabled": false, "actor": "ops", "reason": "pause"});
    service.post("/risk/policies/upsert", &off).await.ok();
    assert_eq!(
        look_first(&service).await,
        [
            "GLOBAL is off, by UNAUTHENTICATED (says ops): pause",
            "WHOLESALE has lost 200 today and is stopped until midnight UTC"
        ]
    );
}

#[tokio::test]
async fn changes_and_refused_attempts_are_listed_newest_first() {
    let service = Service::live().await;
    let enable = json!({"actor": "late", "reason": "again"});
    service.post_with("/go-live/enable", ("if-match", "\"1\""), &enable).await.refused(412, "VERSION_MISMATCH");
    let cap = json!({"engine": "CAPITAL", "max_daily_loss": 100, "actor": "ops", "reason": "tighter"});
    service.post("/risk/policies/upsert", &cap).await.ok();
    let review = review(&service).await;
    let changes: Vec<Value> = review["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            json!([
                change["action"],
                change["subject"],
                change["ok"],
                change["error"],
                change["actor"],
                change["reason"]
            ])
        })
        .collect();
    assert_eq!(
        json!(changes),
        json!([
            ["RISK_POLICY_UPSERT", "CAPITAL", true, null, "ops", "tighter"],
            ["GO_LIVE_ENABLE", null, false, "VERSION_MISMATCH", "late", "again"],
            ["GO_LIVE_ENABLE", null, true, null, "test", null],
        ])
    );
    assert_eq!(review["look_first"], json!(["1 attempts to change the control plane were refused"]));
}

#[tokio::test]
async fn a_wire_at_half_its_threshold_is_near_tripping() {
    let service = Service::live().await;
    // The drop is 0.1 on all of them.
    for (domain, threshold) in [("HALF", "0.2"), ("LESS", "0.200001"), ("OFF", "0.2"), ("WHOLESALE", "0.1")] {
        wire(&service, domain, json!({"max_drop_fraction": threshold})).await;
        a_tenth_down(&service, domain).await;
    }
    wire(&service, "OFF", json!({"enabled": false})).await;
    let review = review(&service).await;
    let named = |list: &Value| -> Vec<String> {
        let rows = list.as_array().unwrap().iter();
        rows.map(|wire| wire["domain"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(named(&review["near_tripping"]), ["HALF"]);
    assert_eq!(named(&review["tripped"]), ["WHOLESALE"]);
    let first = review["look_first"].to_string();
    assert!(first.contains("HALF.m is near tripping: OK drop=0.100"), "{first}");
}

#[tokio::test]
async fn markdown_comes_by_accept_or_by_format() {
    let service = Service::live().await;
    for (path, accept) in [
        ("/review?format=markdown", None),
        ("/review?format=markdown", Some("application/json")),
        ("/review", Some("text/markdown")),
        ("/review", Some("text/markdown; charset=utf-8, */*")),
    ] {
        let (content_type, text) = markdown(&service, path, accept).await;
        assert_eq!(content_type, "text/markdown; charset=utf-8", "{path} {accept:?}");
        assert!(text.starts_with("# Control plane review, "), "{text}");
    }
    for (path, accept) in [("/review", None), ("/review", Some("*/*")), ("/review?format=json", Some("text/markdown"))]
    {
        let (content_type, text) = markdown(&service, path, accept).await;
        assert_eq!(content_type, "application/json", "{path} {accept:?}");
        assert!(text.starts_with('{'), "{text}");
    }
    service.get("/review?format=xml").await.invalid("format");
    service.get("/review?fromat=json").await.invalid("fromat");
}

#[tokio::test]
async fn the_review_says_that_nobody_is_authenticated_until_there_is_a_token() {
    let banner = "**OPEN MODE: there are no tokens, and callers are not authenticated.**";
    let service = Service::live().await;
    assert_eq!(review(&service).await["open_mode"], true);
    let markdown = service.get("/review?format=markdown").await;
    assert!(markdown.text.contains(banner), "{}", markdown.text);
    let token = crate::access::token(&service, "read").await;
    let get =
        |path: &str| crate::access::call(&service, Method::GET, &format!("{BASE}{path}"), Some(&token), &Value::Null);
    assert_eq!(get("/review").await.ok()["open_mode"], false);
    let markdown = get("/review?format=markdown").await;
    assert!(!markdown.text.contains("OPEN MODE"), "{}", markdown.text);
}

#[tokio::test]
async fn markdown_has_every_section_and_no_broken_table() {
    let service = Service::live().await;
    let odd = json!({"engine": "CAPITAL", "max_daily_loss": 100, "actor": "a|b", "reason": "c|d"});
    service.post("/risk/policies/upsert", &odd).await.ok();
    let (_, text) = markdown(&service, "/review?format=markdown", None).await;
    let sections: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let since = review(&service).await["since"].take();
    let monday = &since.as_str().unwrap()[..10];
    let (risk, sandbox) = (format!("Risk since {monday}"), format!("Heimdall sandbox since {monday}"));
    assert_eq!(
        sections,
        [
            "Look at this first",
            "State",
            "Risk today",
            risk.as_str(),
            "Tripwires",
            "Heimdall sandbox today",
            sandbox.as_str(),
            "Heimdall charter",
            "Objectives",
            "Who changed what",
            "Audit streams"
        ]
    );
    assert!(
        text.contains(
            r"| UNAUTHENTICATED (says a\|b) | RISK_POLICY_UPSERT | CAPITAL | max_daily_loss 150 → 100 | done | c\|d |"
        ),
        "{text}"
    );
    let cells = |line: &str| line.replace(r"\|", "").matches('|').count();
    let mut width = 0;
    for line in text.lines() {
        if line.starts_with('|') {
            assert!(width == 0 || cells(line) == width, "{line}");
            width = cells(line);
        } else {
            width = 0;
        }
    }
}

#[tokio::test]
async fn the_period_begins_on_the_monday_before_today() {
    let service = Service::live().await;
    for (now, since) in [
        ("2040-01-02T00:00:01Z", "2039-12-26T00:00:00Z"),
        ("2040-01-03T09:00:00Z", "2040-01-02T00:00:00Z"),
        ("2040-01-08T23:00:00Z", "2040-01-02T00:00:00Z"),
        ("2040-01-09T09:00:00Z", "2040-01-02T00:00:00Z"),
    ] {
        at(&service, now).await;
        assert_eq!(review(&service).await["since"], since, "{now}");
    }
    // Changes before the period are not in it.
    assert_eq!(review(&service).await["changes"], json!([]));
}

#[tokio::test]
async fn uptime_is_the_share_of_the_week_that_production_ran() {
    let service = Service::fresh().await;
    stop_the_clock(&service).await;
    let switch = async |instant: &str, path: &str| {
        stopped_at(&service, instant).await;
        service.post(path, &json!({"actor": "ops"})).await.ok();
    };
    let uptime = async |now: &str| {
        stopped_at(&service, now).await;
        let mut slo = review(&service).await["slo"].take();
        let uptime = slo["go_live_uptime"].take();
        json!([uptime["value"], uptime["met"], uptime["detail"]])
    };
    // An off before the first enable is not downtime: nothing was promised.
    switch("2039-12-31T00:00:00Z", "/go-live/disable").await;
    switch("2040-01-01T12:00:00Z", "/go-live/enable").await;
    assert_eq!(uptime("2040-01-02T00:00:00Z").await, json!([1, true, "up 12 h, down 0.000 s"]));
    // From Monday on the time before it does not count.
    assert_eq!(uptime("2040-01-03T00:00:00Z").await, json!([1, true, "up 24 h, down 0.000 s"]));
    switch("2040-01-04T00:00:00Z", "/go-live/kill-switch/engage").await;
    switch("2040-01-04T03:00:00Z", "/go-live/disable").await;
    switch("2040-01-04T05:00:00Z", "/go-live/kill-switch/release").await;
    switch("2040-01-04T06:00:00Z", "/go-live/enable").await;
    assert_eq!(uptime("2040-01-06T00:00:00Z").await, json!([0.9375, false, "up 90 h, down 6 h"]));
    // A week later all of that is past.
    assert_eq!(uptime("2040-01-10T00:00:00Z").await, json!([1, true, "up 24 h, down 0.000 s"]));
}

#[tokio::test]
async fn uptime_meets_its_target_at_exactly_999_of_1000() {
    let service = Service::fresh().await;
    stop_the_clock(&service).await;
    for (instant, path) in
        [("2040-01-02T00:00:00Z", "enable"), ("2040-01-02T10:00:00Z", "disable"), ("2040-01-02T10:01:00Z", "enable")]
    {
        stopped_at(&service, instant).await;
        service.post(&format!("/go-live/{path}"), &json!({"actor": "ops"})).await.ok();
    }
    for (now, met) in [("2040-01-02T16:39:59Z", false), ("2040-01-02T16:40:00Z", true)] {
        stopped_at(&service, now).await;
        assert_eq!(review(&service).await["slo"]["go_live_uptime"]["met"], met, "{now}");
    }
}

#[tokio::test]
async fn the_denial_rate_is_that_of_the_period_and_five_percent_is_too_much() {
    let service = Service::fresh().await;
    at(&service, "2040-01-01T12:00:00Z").await;
    // Sunday's denial belongs to the week before.
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], false);
    at(&service, "2040-01-02T12:00:00Z").await;
    service.post("/go-live/enable", &json!({"actor": "ops"})).await.ok();
    for _ in 0..19 {
        assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    }
    assert_eq!(service.reserve("NOTIFY", "1").await.ok()["ok"], false);
    // A question is not a decision.
    service.post("/risk/check-and-reserve", &json!({"engine": "NOTIFY", "amount": 1, "dry_run": true})).await.ok();
    at(&service, "2040-01-03T12:00:00Z").await;
    let rate = async || {
        let mut slo = review(&service).await["slo"].take();
        let rate = slo["denial_rate"].take();
        json!([rate["value"], rate["met"], rate["detail"]])
    };
    assert_eq!(rate().await, json!([0.05, false, "1 of 20 reserves denied"]));
    assert_eq!(look_first(&service).await, ["Denial rate misses its target < 5 %: 1 of 20 reserves denied"]);
    service.reserve("WHOLESALE", "1").await.ok();
    assert_eq!(rate().await, json!([0.047_619_047_619, true, "1 of 21 reserves denied"]));
}

#[tokio::test]
async fn time_to_remediate_is_the_mean_from_trip_to_rearm() {
    let service = Service::live().await;
    stop_the_clock(&service).await;
    let metric = async |now: &str| {
        stopped_at(&service, now).await;
        let mut slo = review(&service).await["slo"].take();
        let metric = slo["time_to_remediate"].take();
        json!([metric["value"], metric["met"], metric["detail"]])
    };
    let rearm = async |instant: &str, domain: &str| {
        stopped_at(&service, instant).await;
        wire(&service, domain, json!({"reason": "fixed"})).await;
    };
    stopped_at(&service, "2040-01-02T08:00:00Z").await;
    for domain in ["FIRST", "SECOND", "THIRD"] {
        wire(&service, domain, json!({"max_drop_fraction": 0.1})).await;
        for _ in 0..19 {
            kpi(&service, domain, true).await;
        }
    }
    assert_eq!(
        metric("2040-01-02T09:00:00Z").await,
        json!([null, null, "0 trips re-armed, 0 standing for 2 h or longer"])
    );
    stopped_at(&service, "2040-01-02T10:00:00Z").await;
    assert!(kpi(&service, "FIRST", false).await["tripped"].is_object());
    assert_eq!(
        metric("2040-01-02T11:00:00Z").await,
        json!([null, null, "0 trips re-armed, 0 standing for 2 h or longer"])
    );
    rearm("2040-01-02T11:30:00Z", "FIRST").await;
    assert_eq!(
        metric("2040-01-02T11:30:00Z").await,
        json!([5400, true, "1 trips re-armed, 0 standing for 2 h or longer"])
    );
    // The mean of 1.5 h and 2.5 h is 2 h, which is not less than 2 h.
    stopped_at(&service, "2040-01-03T10:00:00Z").await;
    assert!(kpi(&service, "SECOND", false).await["tripped"].is_object());
    rearm("2040-01-03T12:30:00Z", "SECOND").await;
    assert_eq!(
        metric("2040-01-03T12:30:00Z").await,
        json!([7200, false, "2 trips re-armed, 0 standing for 2 h or longer"])
    );
    stopped_at(&service, "2040-01-03T13:00:00Z").await;
    assert!(kpi(&service, "THIRD", false).await["tripped"].is_object());
    assert_eq!(
        metric("2040-01-03T15:00:00Z").await,
        json!([7200, false, "2 trips re-armed, 1 standing for 2 h or longer"])
    );
}

#[tokio::test]
async fn a_trip_that_stands_since_before_the_period_is_still_overdue() {
    let service = Service::live().await;
    wire(&service, "STANDING", json!({"max_drop_fraction": 0.1})).await;
    at(&service, "2040-01-03T12:00:00Z").await;
    a_tenth_down(&service, "STANDING").await;
    at(&service, "2040-01-11T12:00:00Z").await;
    let review = review(&service).await;
    assert_eq!(review["tripped"][0]["domain"], "STANDING");
    let metric = &review["slo"]["time_to_remediate"];
    assert_eq!(
        json!([metric["value"], metric["met"], metric["detail"]]),
        json!([null, false, "0 trips re-armed, 1 standing for 2 h or longer"])
    );
}

#[tokio::test]
async fn the_sandbox_success_rate_is_that_of_the_period_and_more_than_eighty_percent() {
    let service = Service::live().await;
    let trial = async |success: bool| {
        let body = json!({"domain": "BUYER_MATCH", "confidence": 0.9, "success": success});
        service.post("/heimdall/sandbox/trial", &body).await.ok();
    };
    let rate = async || {
        let mut slo = review(&service).await["slo"].take();
        let rate = slo["sandbox_success_rate"].take();
        json!([rate["value"], rate["met"], rate["detail"]])
    };
    at(&service, "2040-01-01T12:00:00Z").await;
    trial(false).await;
    at(&service, "2040-01-02T12:00:00Z").await;
    for number in 0..20 {
        trial(number > 3).await;
    }
    at(&service, "2040-01-03T12:00:00Z").await;
    assert_eq!(rate().await, json!([0.8, false, "16 of 20 trials succeeded"]));
    trial(true).await;
    assert_eq!(rate().await, json!([0.809_523_809_524, true, "17 of 21 trials succeeded"]));
}

#[tokio::test]
async fn uptime_of_the_first_instant_does_not_claim_that_go_live_was_never_enabled() {
    let service = Service::fresh().await;
    stop_the_clock(&service).await;
    stopped_at(&service, "2040-01-03T12:00:00Z").await;
    service.post("/go-live/enable", &json!({"actor": "ops"})).await.ok();
    let uptime = review(&service).await["slo"]["go_live_uptime"].take();
    assert_ne!(uptime["detail"], "go-live was never enabled");
}

#[tokio::test]
async fn what_nobody_judges_is_named_with_the_name_that_may_be_meant() {
    let service = Service::live().await;
    wire(&service, "WHOLESALE", json!({})).await;
    kpi(&service, "WHOLSALE", true).await;
    kpi(&service, "SUPPORT", true).await;
    assert_eq!(
        look_first(&service).await,
        [
            "SUPPORT.m is measured (1 events) and no wire watches it",
            "WHOLSALE.m is measured (1 events) and no wire watches it: did you mean WHOLESALE.m?",
            "The wire WHOLESALE.m is on and its series never had an event: did you mean WHOLSALE.m?",
        ]
    );
    kpi(&service, "WHOLESALE", true).await;
    let warming = "The wire WHOLESALE.m does not judge yet: insufficient_events(recent=1, baseline=0)";
    assert_eq!(look_first(&service).await[2], warming);
    for _ in 0..20 {
        kpi(&service, "WHOLESALE", true).await;
    }
    assert_eq!(look_first(&service).await.len(), 2);
    let reset = json!({"domain": "WHOLESALE", "metric": "m", "source": "NEXT_N"});
    service.post("/regression/baseline/reset", &reset).await.ok();
    assert!(look_first(&service).await[2].starts_with("The wire WHOLESALE.m does not judge yet"));
    wire(&service, "WHOLESALE", json!({"enabled": false, "actor": "ann"})).await;
    assert_eq!(
        look_first(&service).await[2],
        "The wire WHOLESALE.m is off, by UNAUTHENTICATED (says ann): nobody judges its 21 events"
    );
    let review = review(&service).await;
    assert_eq!(
        (&review["unwatched"][1]["did_you_mean"], &review["blind_wires"][0]["why"]),
        (&json!("WHOLESALE.m"), &json!("OFF"))
    );
    // A series of losses has no relative drop.
    wire(&service, "NEG", json!({"action": "KILL_SWITCH", "force": true})).await;
    let event = json!({"domain": "NEG", "metric": "m", "value": -1});
    service.post("/regression/kpi/batch", &json!({"events": vec![event; 20], "actor": "test"})).await.ok();
    assert!(look_first(&service).await[2].starts_with("The wire NEG.m judges nothing: its baseline is not above 0"));
    wire(&service, "NEG", json!({"enabled": false, "actor": "ann", "action": "KILL_SWITCH", "force": true})).await;
    // A series that is not measured any more is no news.
    at(&service, "2040-01-12T12:00:00Z").await;
    assert_eq!(
        look_first(&service).await,
        [
            "The wire NEG.m is off, by UNAUTHENTICATED (says ann): nobody judges its 20 events",
            "The wire WHOLESALE.m is off, by UNAUTHENTICATED (says ann): nobody judges its 21 events",
        ]
    );
}
