//! Concurrent requests: one end for each reservation, exactly the amount that fits, one reservation for one id.

use super::{Standing, hold_for, level, policy, reservation, time, uncapped};
use crate::support::{Answer, Service, Setup, all, as_first};
use chrono::TimeDelta;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The outcome of four requests that ended one hold at once, while its time ran out.
async fn check_one_end(service: &Service, id: &str, settles: Vec<Answer>, releases: Vec<Answer>) -> String {
    let won = |answers: &[Answer]| answers.iter().filter(|answer| answer.status == 200).count();
    let codes = |answers: Vec<Answer>| -> BTreeSet<String> {
        let lost = answers.into_iter().filter(|answer| answer.status != 200);
        lost.map(|answer| {
            assert_eq!(answer.status, 409, "{}", answer.text);
            answer.json["error"].as_str().unwrap().to_owned()
        })
        .collect()
    };
    let held = reservation(service, id).await;
    let late = settles.iter().any(|answer| answer.json["late"] == true);
    let (settled, released) = (won(&settles), won(&releases));
    let (settle_codes, release_codes) = (codes(settles), codes(releases));
    let among = |codes: &BTreeSet<String>, known: &[&str]| codes.iter().all(|code| known.contains(&code.as_str()));
    match held["status"].as_str().unwrap() {
        "RELEASED" => {
            assert_eq!((settled, released), (0, 1));
            assert!(among(&settle_codes, &["ALREADY_RELEASED"]) && among(&release_codes, &["ALREADY_RELEASED"]));
            "released".to_owned()
        }
        "SETTLED" => {
            assert_eq!((settled, released), (1, 0));
            assert!(among(&settle_codes, &["ALREADY_SETTLED"]), "{settle_codes:?}");
            let expected: &[_] = if late { &["ALREADY_EXPIRED", "ALREADY_SETTLED"] } else { &["ALREADY_SETTLED"] };
            assert!(among(&release_codes, expected), "{release_codes:?}");
            if late { "late".to_owned() } else { "settled".to_owned() }
        }
        other => panic!("two settles came after it, so it is not {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_settle_release_and_expiry_at_once_exactly_one_ends_a_reservation() {
    const ROUNDS: usize = 40;
    let first = Service::live().await;
    uncapped(&first, &["RACE"]).await;
    let mut clock = Standing::at(&first, "08:00").await;
    let second = Service::on(first.options.clone(), Setup::default()).await;
    second.clock.advance(172_800_000);
    let mut losses = 0;
    let mut open = [0; 3];
    for round in 0..ROUNDS {
        let id = hold_for(&first, "RACE", "10", 60).await;
        let due = time(&reservation(&first, &id).await["expires_at"]);
        clock.pass_to(due - TimeDelta::milliseconds(1)).await;
        second.clock.advance(60_000);
        let services = [&first, &second];
        let send = |n: usize, what: &str, body: Value| tokio::spawn(super::tell(services[n % 2], &id, what, &body));
        let settle = |n| send(n, "settle", json!({"realized_loss": 1}));
        let release = |n| send(n, "release", json!({}));
        // Each comes first in some of the rounds.
        let (mut settles, mut releases) = (Vec::new(), Vec::new());
        for place in 0..4 {
            match (place + round) % 4 {
                0 | 2 => settles.push(settle(place)),
                1 => releases.push(release(place)),
                _ => {
                    clock.pass_to(due + TimeDelta::milliseconds(1)).await;
                    releases.push(release(place));
                }
            }
        }
        super::expire_due(&first).await;
        let (settles, releases) = (all(settles).await, all(releases).await);
        let ended = check_one_end(&first, &id, settles, releases).await;
        losses += i64::from(ended != "released");
        open[["settled", "late", "released"].iter().position(|how| *how == ended).unwrap()] += 1;
    }
    let level = level(&first, "RACE").await;
    assert_eq!(json!([level[1], level[2], level[3]]), json!([0, losses, ROUNDS]), "{open:?}");
    let ends = "SELECT count(*) FROM risk_event WHERE action IN ('SETTLE', 'RELEASE')";
    assert_eq!(first.count(ends).await, i64::try_from(ROUNDS).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_reserves_with_times_and_keys_each_sent_twice_exactly_as_many_pass_as_fit() {
    const SENT: usize = 150;
    const FIT: usize = 60;
    let first = Service::live().await;
    uncapped(&first, &["RACE"]).await;
    policy(&first, json!({"engine": "RACE", "max_open_risk": FIT})).await;
    let second = Service::on(first.options.clone(), Setup::default()).await;
    let send = |n: usize, service: &Service| {
        let body =
            json!({"engine": "RACE", "amount": 1, "ttl_seconds": 60 + n % 3, "idempotency_key": format!("k-{n}")});
        tokio::spawn(service.post("/risk/check-and-reserve", &body))
    };
    let running: Vec<_> = (0..SENT).flat_map(|n| [send(n, &first), send(n, &second)]).collect();
    let answers: Vec<_> = all(running).await.into_iter().map(Answer::ok).collect();
    let mut ids = BTreeSet::new();
    for pair in answers.chunks(2) {
        assert_eq!(as_first(&pair[0]), as_first(&pair[1]), "the same key, the same answer");
        if pair[0]["ok"] == true {
            ids.insert(pair[0]["reservation_id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(ids.len(), FIT);
    assert_eq!(level(&first, "RACE").await, json!([FIT, FIT, 0, FIT]));
    assert_eq!(first.count("SELECT count(*) FROM idempotency_key").await, i64::try_from(SENT).unwrap());
    assert_eq!(
        first.count("SELECT sum(denied)::bigint FROM risk_denial_day").await,
        i64::try_from(SENT - FIT).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_that_comes_back_at_one_instant_is_given_away_exactly_once() {
    const FIT: usize = 40;
    let first = Service::live().await;
    uncapped(&first, &["RACE"]).await;
    policy(&first, json!({"engine": "RACE", "max_open_risk": FIT})).await;
    let second = Service::on(first.options.clone(), Setup::default()).await;
    for round in 1..=3 {
        let running: Vec<_> = (0..2 * FIT)
            .map(|n| {
                let body = json!({"engine": "RACE", "amount": 1, "ttl_seconds": 60});
                tokio::spawn([&first, &second][n % 2].post("/risk/check-and-reserve", &body))
            })
            .collect();
        let allowed = all(running).await.into_iter().filter(|answer| answer.json["ok"] == true).count();
        assert_eq!(allowed, FIT, "round {round}");
        let skew = format!("{} seconds", round * 61);
        first.set_skew(&skew).await;
        second.clock.advance(61_000);
    }
    assert_eq!(first.count("SELECT count(*) FROM risk_event WHERE action = 'EXPIRE'").await, 80);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_chosen_id_from_many_at_once_is_one_reservation() {
    let first = Service::live().await;
    let second = Service::on(first.options.clone(), Setup::default()).await;
    for round in 0..10_u32 {
        let id = format!("7e57ab1e-0000-4000-8000-{round:012}");
        let send = |n: usize| {
            // Every third asks for another amount under it.
            let amount = if n % 3 == 2 { 2 } else { 1 };
            let body = json!({"engine": "WHOLESALE", "amount": amount, "reservation_id": id});
            tokio::spawn([&first, &second][n % 2].post("/risk/reservations", &body))
        };
        let answers = all((0..12).map(send).collect()).await;
        let made = answers.iter().filter(|answer| answer.status == 201).collect::<Vec<_>>();
        let anew = made.iter().filter(|answer| !answer.headers.contains_key("idempotent-replayed")).count();
        assert_eq!(anew, 1);
        assert!(made.iter().all(|answer| as_first(&answer.json) == as_first(&made[0].json)));
        assert!(made.iter().all(|answer| answer.json["status"] == "OPEN"));
        assert!(matches!(made.len(), 4 | 8), "one amount or the other: {}", made.len());
        for lost in answers.iter().filter(|answer| answer.status != 201) {
            assert_eq!(json!([lost.json["error"], lost.json["fields"]]), json!(["RESERVATION_EXISTS", ["amount"]]));
        }
    }
    assert_eq!(level(&first, "WHOLESALE").await[3], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_operations_of_a_day_of_every_kind_may_come_from_many_at_once() {
    let first = Service::live().await;
    uncapped(&first, &["NEW"]).await;
    let second = Service::on(first.options.clone(), Setup::default()).await;
    let mut ids = Vec::new();
    for _ in 0..24 {
        ids.push(hold_for(&first, "NEW", "1", 600_000).await);
    }
    first.set_skew("1 day").await;
    second.clock.advance(86_400_000);
    let running = ids.iter().enumerate().map(|(n, id)| {
        let (service, by_id) = ([&first, &second][n % 2], format!("/risk/reservations/{id}"));
        let (path, body) = match n % 6 {
            0 => (format!("{by_id}/settle"), json!({"realized_loss": 1})),
            1 => (format!("{by_id}/release"), json!({})),
            2 => (format!("{by_id}/extend"), json!({"ttl_seconds": 700_000})),
            3 => ("/risk/adjustments".to_owned(), json!({"corrects_seq": n + 1, "loss_delta": 2, "reason": "r"})),
            4 => ("/risk/batch".to_owned(), json!({"operations": [{"op": "reserve", "engine": "NEW", "amount": 3}]})),
            _ => ("/risk/settle".to_owned(), json!({"reservation_id": id, "settled_amount": 5})),
        };
        tokio::spawn(service.post(&path, &body))
    });
    for answer in all(running.collect()).await {
        answer.ok();
    }
    // Four of each: overruns of 4, losses of 1 and of 2; 8 settled, 4 released, 12 left, and 4 of 3.
    for engine in ["NEW", "GLOBAL"] {
        assert_eq!(level(&first, engine).await, json!([28, 24, 12, 4]), "{engine}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extensions_and_expiries_at_once_leave_each_hold_either_extended_or_expired() {
    let service = Service::live().await;
    uncapped(&service, &["RACE"]).await;
    let mut clock = Standing::at(&service, "08:00").await;
    for _ in 0..20 {
        let id = hold_for(&service, "RACE", "1", 60).await;
        let due = time(&reservation(&service, &id).await["expires_at"]);
        clock.pass_to(due - TimeDelta::milliseconds(1)).await;
        let path = format!("/risk/reservations/{id}/extend");
        let running: Vec<_> = (0..4).map(|_| tokio::spawn(service.post(&path, &json!({"ttl_seconds": 600})))).collect();
        clock.pass_to(due).await;
        super::expire_due(&service).await;
        let answers = all(running).await;
        let extended = answers.iter().filter(|answer| answer.status == 200).count();
        let held = reservation(&service, &id).await;
        if extended == 0 {
            assert_eq!(held["status"], "EXPIRED");
        } else {
            assert_eq!((extended, held["status"].as_str()), (4, Some("OPEN")), "extended, it is not due any more");
        }
        for lost in answers.iter().filter(|answer| answer.status != 200) {
            assert_eq!(lost.json["error"], "ALREADY_EXPIRED");
        }
    }
}
