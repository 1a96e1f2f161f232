//! Events in the archive: a request that needs them is told where they are, and everything else goes on.

use crate::partitions::{STREAMS, append, ending_with};
use crate::support::{Answer, Service};
use chrono::NaiveDate;
use holdfast::audit::archive::restore::restore;
use holdfast::audit::archive::{self, ArchiveError, Directory, Plan, Selection, check};
use holdfast::audit::checkpoint::{Notary, believe};
use holdfast::audit::erase::{Target, erase};
use holdfast::audit::note::Signer;
use holdfast::audit::partitions::make_ahead;
use holdfast::audit::{Origin, Stream};
use holdfast::db::archived;
use holdfast::types::Point;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The file of the first partition of a book.
fn first(stream: Stream) -> String {
    archive::file_name(stream, 1, 4)
}

pub fn notary() -> Notary {
    Notary::new(Signer::new("test", [1; 32]).unwrap(), None, None)
}

/// A directory of its own, gone with the test.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("holdfast-archive-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The day after which everything so far is old enough, 40 days ahead.
async fn later(service: &Service) -> NaiveDate {
    service.set_skew("40 days").await;
    today(service).await - chrono::TimeDelta::days(8)
}

async fn count(service: &Service, sql: String) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&service.pool).await.unwrap()
}

/// The first event that the database has.
async fn first_here(service: &Service, stream: Stream) -> i64 {
    count(service, format!("SELECT min(seq) FROM {}", stream.table())).await
}

async fn today(service: &Service) -> NaiveDate {
    sqlx::query_scalar("SELECT (holdfast_now() AT TIME ZONE 'UTC')::date").fetch_one(&service.pool).await.unwrap()
}

const fn all(before: NaiveDate) -> Selection {
    Selection { before, with_restored: true }
}

pub async fn archive(service: &Service, dir: &Dir, before: NaiveDate) -> Result<Plan, ArchiveError> {
    let directory = Directory { path: dir.path().to_owned(), data_dir: None };
    archive::archive(&service.db, &notary(), &directory, all(before), &mut |_| {}).await
}

async fn checked(service: &Service, dir: &Dir) -> check::Checked {
    checked_only(service, dir, None).await
}

async fn checked_only(service: &Service, dir: &Dir, only: Option<Stream>) -> check::Checked {
    let mut tx = service.db.begin_unlimited_snapshot().await.unwrap();
    let mut segments = archived::all(&mut tx).await.unwrap();
    segments.retain(|one| only.is_none_or(|only| only == one.stream));
    check::check(&mut tx, dir.path(), &[notary().verifier()], (&segments, only), &BTreeMap::new()).await.unwrap()
}

struct Book {
    service: Service,
    dir: Dir,
    /// The holds of the first four events; the last is open still. Of the charter, its two recommendations.
    ids: Vec<String>,
    /// The event with the reason `r1`.
    reasoned: i64,
    before: NaiveDate,
}

/// A book with four events in the first partition of this stream, and two more behind it, 40 days later.
async fn old(stream: Stream) -> Book {
    let service = ending_with(stream, 4).await;
    make_ahead(&service.db).await.unwrap();
    let (ids, reasoned) = match stream {
        Stream::Heimdall => (recommendations(&service).await, 4),
        _ => (holds(&service).await, 2),
    };
    let before = later(&service).await;
    for _ in 0..2 {
        append(&service, stream).await.ok();
    }
    Book { service, dir: Dir::new(), ids, reasoned, before }
}

/// A trial, and two recommendations for ever, of which the second is revoked.
async fn recommendations(service: &Service) -> Vec<String> {
    let policy = json!({"domain": "WHOLESALE", "min_sandbox_trials": 1, "recommendation_ttl_seconds": 0,
                        "scorecard_window": "ROLLING_DAYS", "window_days": 365, "prod_use_enabled": true});
    service.post("/heimdall/policies/upsert", &policy).await.ok();
    let trial = json!({"domain": "WHOLESALE", "confidence": 0.9, "success": true, "actor": "a"});
    service.post("/heimdall/sandbox/trial", &trial).await.ok();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let advice = json!({"domain": "WHOLESALE", "confidence": 0.99, "recommendation": {"price": 7}, "actor": "a"});
        let made = service.post("/heimdall/recommend", &advice).await.ok();
        assert_eq!(made["gate_reason"], "gate_pass");
        ids.push(made["id"].to_string());
    }
    let revoked = service.post(&format!("/heimdall/recommendations/{}/revoke", ids[1]), &json!({"reason": "r1"})).await;
    revoked.ok();
    ids
}

/// Two holds that have ended, and an open one.
async fn holds(service: &Service) -> Vec<String> {
    let mut ids = Vec::new();
    // An id with a time in it: the tests' database and this process do not agree on the hour.
    for (number, id) in [Some("01900000-0000-7000-8000-000000000001"), None].into_iter().enumerate() {
        let hold = json!({"engine": "WHOLESALE", "amount": 1, "reason": format!("r{number}"), "actor": "a", "reservation_id": id});
        let made = service.post("/risk/check-and-reserve", &hold).await.ok();
        ids.push(made["reservation_id"].as_str().unwrap().to_owned());
    }
    service.post("/risk/settle", &json!({"reservation_id": ids[0]})).await.ok();
    let hold = json!({"engine": "WHOLESALE", "amount": 1, "reservation_id": "00000000-0000-4000-8000-000000000001"});
    let made = service.post("/risk/check-and-reserve", &hold).await.ok();
    ids.push(made["reservation_id"].as_str().unwrap().to_owned());
    ids
}

async fn archived_book(stream: Stream) -> Book {
    let book = old(stream).await;
    let plan = archive(&book.service, &book.dir, book.before).await.unwrap();
    assert_eq!(plan.parts.iter().map(archive::Part::file).collect::<Vec<_>>(), [first(stream)]);
    book
}

#[tokio::test]
async fn a_partition_moves_into_a_file_and_both_are_one_chain() {
    for stream in STREAMS {
        let Book { service, dir, before, .. } = &archived_book(stream).await;
        assert_eq!(dir.names(), [first(stream), format!("{}.note", first(stream))]);
        assert_eq!(first_here(service, stream).await, 5);
        assert_eq!(service.count("SELECT count(*) FROM risk_reservation WHERE status <> 'OPEN'").await, 0);
        let checked = checked(service, dir).await;
        assert_eq!(checked.faults, [""; 0]);
        assert_eq!(checked.events[&stream], 4);
        let verified = service.get("/audit/verify").await.ok();
        assert_eq!(verified["ok"], true, "{verified}");
        assert_eq!(service.count("SELECT count(*) FROM control_event WHERE action = 'AUDIT_ARCHIVE'").await, 1);
        // Nothing is left for a second one, and the stream goes on.
        assert!(archive(service, dir, *before).await.unwrap().parts.is_empty());
        append(service, stream).await.ok();
        assert_eq!(service.get("/audit/verify").await.ok()["ok"], true);
        assert_eq!(service.get("/risk/reconciliation").await.ok()["balanced"], true);
    }
}

/// The status, the code, and the reason of the gate, as a caller is told.
fn told(answer: &Answer) -> (u16, String, String) {
    let word = |name: &str| answer.json[name].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), word("error"), word("gate_reason"))
}

#[tokio::test]
async fn no_decision_on_a_recommendation_changes_because_its_events_are_archived() {
    let mut decided = Vec::new();
    for book in [old(Stream::Heimdall).await, archived_book(Stream::Heimdall).await] {
        let Book { service, ids, .. } = &book;
        let post = async |number: usize, what: &str| {
            told(&service.post(&format!("/heimdall/recommendations/{}/{what}", ids[number]), &json!({})).await)
        };
        let mut answers = Vec::new();
        for _ in 0..2 {
            answers.push(post(0, "require-prod-eligible").await);
            answers.push(post(1, "require-prod-eligible").await);
        }
        answers.push(post(0, "revoke").await);
        answers.push(post(0, "revoke").await);
        answers.push(post(0, "require-prod-eligible").await);
        // The trials of the window are archived, and count.
        let advice = json!({"domain": "WHOLESALE", "confidence": 0.99});
        answers.push(told(&service.post("/heimdall/recommend", &advice).await));
        let demoted = service.post("/heimdall/demote", &json!({"domain": "WHOLESALE", "reason": "r"})).await;
        answers.push(told(&demoted));
        // A domain that was ever used keeps its policy.
        let removal = json!({"domain": "WHOLESALE", "reason": "r"});
        let removed = service.post("/heimdall/policies/remove", &removal).await;
        answers.push(told(&removed));
        let uses = service.count("SELECT count(*) FROM heimdall_event WHERE action = 'REQUIRE'").await;
        assert_eq!(uses, 5);
        assert_eq!(service.get("/audit/verify").await.ok()["ok"], true);
        decided.push(answers);
    }
    assert_eq!(decided[0], decided[1]);
    let refused = (403, "NOT_PROD_ELIGIBLE", "recommendation_revoked");
    let expected = [
        (200, "", "gate_pass"),
        refused,
        (200, "", "gate_pass"),
        refused,
        (200, "", ""),
        (200, "", ""),
        refused,
        (200, "", "gate_pass"),
        (200, "", ""),
        (409, "STILL_USED", ""),
    ];
    let expected = expected.map(|(status, code, reason)| (status, code.to_owned(), reason.to_owned()));
    assert_eq!(decided[0], expected);
}

#[tokio::test]
async fn measurements_stay_whatever_is_archived_so_that_an_id_counts_once_for_ever() {
    let Book { service, dir, before, .. } = &old(Stream::Heimdall).await;
    // As old as the rest, so nothing but its stream keeps it.
    service.set_skew("0").await;
    let measurement = json!({"domain": "D", "metric": "m", "value": 1, "event_id": "one"});
    let first = service.post("/regression/kpi", &measurement).await.ok();
    service.set_skew("40 days").await;
    assert_eq!(archive(service, dir, *before).await.unwrap().parts.len(), 1);
    let again = service.post("/regression/kpi", &measurement).await.ok();
    assert_eq!((&again["duplicate"], &again["id"]), (&json!(true), &first["id"]));
}

#[tokio::test]
async fn a_recommendation_whose_events_are_archived_says_where_they_are() {
    let Book { service, dir, ids, reasoned, .. } = &archived_book(Stream::Heimdall).await;
    let file = first(Stream::Heimdall);
    for id in ids {
        let gone = service.get(&format!("/heimdall/recommendations/{id}")).await.refused(410, "ARCHIVED");
        assert_eq!((&gone["file"], &gone["stream"]), (&json!(file), &json!("heimdall")));
    }
    // The first revocation is the answer, and it is in the file.
    let again = service.post(&format!("/heimdall/recommendations/{}/revoke", ids[1]), &json!({})).await;
    assert_eq!(again.refused(410, "ARCHIVED")["file"], json!(file));
    service.get("/heimdall/recommendations/1").await.refused(404, "NOT_FOUND");
    let advice = json!({"domain": "D", "confidence": 0.5});
    let made = service.post("/heimdall/recommend", &advice).await.ok();
    for (path, items) in [
        ("/heimdall/events?", 3),
        ("/heimdall/events?action=TRIAL&", 2),
        ("/heimdall/events?domain=WHOLESALE&", 0),
        ("/heimdall/recommendations?", 1),
        ("/heimdall/recommendations?prod_eligible=false&", 1),
        ("/heimdall/recommendations?domain=WHOLESALE&", 0),
        ("/audit/events?stream=heimdall&", 3),
    ] {
        let page = service.get(&format!("{path}limit=100")).await.ok();
        let gone = if page["archived"].is_array() { &page["archived"][0] } else { &page["archived"] };
        assert_eq!((&gone["last"], &gone["file"]), (&json!(4), &json!(file)), "{path}: {page}");
        assert_eq!(page["items"].as_array().unwrap().len(), items, "{path}: {page}");
        assert_eq!(page["next_cursor"], Value::Null, "{path}");
    }
    assert_eq!(service.get(&format!("/heimdall/recommendations/{}", made["id"])).await.ok()["used_at"], Value::Null);
    let target = Target::new(Stream::Heimdall, *reasoned, "reason").unwrap();
    let erased = erase(&service.db, target, &"x".parse().unwrap(), &Origin::system(None)).await;
    assert!(erased.unwrap_err().to_string().contains(&file));
    restore(&service.db, &dir.path().join(&file), &[notary().verifier()], &mut |_| {}).await.unwrap();
    let back = service.get(&format!("/heimdall/recommendations/{}", ids[1])).await.ok();
    assert_eq!((&back["revoke_reason"], &back["recommendation"]), (&json!("r1"), &json!({"price": 7})));
    let page = service.get("/heimdall/recommendations").await.ok();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["archived"]), (3, &Value::Null));
}

#[tokio::test]
async fn an_open_hold_outlives_its_events_and_what_needs_them_says_where_they_are() {
    let Book { service, ids, .. } = &archived_book(Stream::Risk).await;
    let file = first(Stream::Risk);
    let open = service.get("/risk/reservations?status=OPEN").await.ok();
    assert_eq!(open["items"].as_array().unwrap().len(), 4);
    let old = service.get("/risk/reservations?status=OPEN&older_than=86400").await.ok();
    assert_eq!(old["items"].as_array().unwrap().len(), 2, "{old}");
    assert_eq!(service.get(&format!("/risk/reservations/{}", ids[1])).await.ok()["seq"], 2);
    let gone = service.get(&format!("/risk/reservations/{}", ids[0])).await.refused(410, "ARCHIVED");
    assert_eq!(
        (&gone["file"], &gone["first"], &gone["last"], &gone["stream"]),
        (&json!(file), &json!(1), &json!(4), &json!("risk"))
    );
    let again = json!({"engine": "WHOLESALE", "amount": 1, "reservation_id": ids[2]});
    service.post("/risk/check-and-reserve", &again).await.refused(410, "ARCHIVED");
    service.post("/risk/settle", &json!({"reservation_id": ids[0]})).await.refused(410, "ARCHIVED");
    // An id of then whose reservation has ended reserves nothing a second time.
    let resent = json!({"engine": "WHOLESALE", "amount": 1, "reservation_id": ids[0]});
    service.post("/risk/check-and-reserve", &resent).await.refused(410, "ARCHIVED");
    let correction = json!({"corrects_seq": 1, "exposure_delta": "-1", "actor": "a", "reason": "r"});
    service.post("/risk/adjustments", &correction).await.refused(410, "ARCHIVED");
    // It settles as ever, and its end is told.
    service.post("/risk/settle", &json!({"reservation_id": ids[1], "realized_loss": "0.5"})).await.ok();
    assert_eq!(service.get(&format!("/risk/reservations/{}", ids[1])).await.ok()["status"], "SETTLED");
    service.post("/risk/settle", &json!({"reservation_id": ids[1]})).await.refused(409, "ALREADY_SETTLED");
    let told = service.get(&format!("/audit/events?stream=risk&reservation_id={}", ids[1])).await.ok();
    assert_eq!(told["items"].as_array().unwrap().len(), 1, "{told}");
    for path in ["/audit/events?stream=risk", "/audit/events?stream=risk&order=asc", "/risk/events"] {
        let page = service.get(path).await.ok();
        let gone = if page["archived"].is_array() { &page["archived"][0] } else { &page["archived"] };
        assert_eq!((&gone["last"], &gone["file"]), (&json!(4), &json!(file)), "{path}: {page}");
        assert_eq!(page["items"].as_array().unwrap().len(), 3, "{path}");
    }
    let recent = service.get("/risk/events?from=2999-01-01T00:00:00Z").await.ok();
    assert_eq!(recent["archived"], Value::Null);
    service.get("/audit/verify?stream=risk&from=3").await.refused(410, "ARCHIVED");
    let target = Target::new(Stream::Risk, 2, "reason").unwrap();
    let erased = erase(&service.db, target, &"x".parse().unwrap(), &Origin::system(None)).await;
    assert!(erased.unwrap_err().to_string().contains(&file));
    assert!(holdfast::risk::reconcile::reconcile(&service.db).await.unwrap().differences.is_empty());
}

#[tokio::test]
async fn a_segment_comes_back_with_its_guards_and_leaves_again() {
    for stream in STREAMS {
        let Book { service, dir, before, reasoned, .. } = &archived_book(stream).await;
        let file = dir.path().join(first(stream));
        restore(&service.db, &file, &[notary().verifier()], &mut |_| {}).await.unwrap();
        assert_eq!(first_here(service, stream).await, 1);
        assert_eq!(service.get("/audit/verify").await.ok()["ok"], true);
        let told = service.get(&format!("/audit/events?stream={}&order=asc", stream.as_str())).await.ok();
        let told = told["items"].as_array().unwrap().iter().find(|event| event["seq"] == *reasoned).unwrap().clone();
        assert_eq!(told["reason"], "r1");
        for verb in ["DELETE FROM", "TRUNCATE"] {
            let by_hand = AssertSqlSafe(format!("{verb} {}_1", stream.table()));
            let error = service.pool.execute(by_hand).await.unwrap_err();
            assert!(error.to_string().contains("the audit trail"), "{error}");
        }
        let twice = restore(&service.db, &file, &[notary().verifier()], &mut |_| {}).await.unwrap_err();
        assert!(twice.to_string().contains("in the database already"), "{twice}");
        // A text is erased while it is back; the new file lacks it, and the old one is no longer the archive's.
        let target = Target::new(stream, *reasoned, "reason").unwrap();
        erase(&service.db, target, &"x".parse().unwrap(), &Origin::system(None)).await.unwrap();
        let before_it = fs::read(&file).unwrap();
        assert_eq!(archive(service, dir, *before).await.unwrap().parts.len(), 1);
        assert_eq!(checked(service, dir).await.faults, [""; 0]);
        assert_eq!(first_here(service, stream).await, 5);
        fs::write(&file, before_it).unwrap();
        assert_eq!(checked(service, dir).await.faults.len(), 1);
        assert_eq!(service.get("/audit/verify").await.ok()["ok"], true);
    }
}

#[tokio::test]
async fn a_segment_that_is_edited_missing_doubled_or_of_another_installation_is_named() {
    for stream in STREAMS {
        let Book { service, dir, reasoned, .. } = &archived_book(stream).await;
        let (name, of) = (stream.as_str(), first(stream));
        let (file, note) = (dir.path().join(&of), dir.path().join(format!("{of}.note")));
        let (whole, signed) = (fs::read(&file).unwrap(), fs::read_to_string(&note).unwrap());
        let faults = async || checked(service, dir).await.faults.join("; ");
        let mut edited = whole.clone();
        *edited.last_mut().unwrap() ^= 1;
        fs::write(&file, &edited).unwrap();
        assert!(faults().await.contains(&of));
        // One that is whole in itself, and has another text.
        let lines = String::from_utf8(zstd::decode_all(&whole[..]).unwrap()).unwrap();
        fs::write(&file, zstd::encode_all(lines.replace("\"r1\"", "\"r2\"").as_bytes(), 3).unwrap()).unwrap();
        assert!(
            faults().await.contains(&format!("{name} {reasoned}: its content does not match its hash")),
            "{}",
            faults().await
        );
        fs::write(&file, zstd::encode_all(lines.replace("WHOLESALE", "WHOLESALX").as_bytes(), 3).unwrap()).unwrap();
        assert!(faults().await.contains(&format!("{name} 1: its content")), "{}", faults().await);
        fs::write(&file, &whole).unwrap();
        fs::write(&note, signed.replace(&format!("{name} 4"), &format!("{name} 5"))).unwrap();
        assert!(faults().await.contains("belongs to another text"), "{}", faults().await);
        fs::write(&note, &signed).unwrap();
        assert_eq!(faults().await, "");
        let twin = archive::file_name(stream, 2, 4);
        fs::copy(&file, dir.path().join(&twin)).unwrap();
        assert!(faults().await.contains(&format!("{of} and {twin} have the same events")), "{}", faults().await);
        fs::remove_file(dir.path().join(&twin)).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(faults().await, format!("{of} is missing: events 1 to 4 of {name} are only there"));
        // Another installation's, signed by the same key.
        let other = archived_book(stream).await;
        for own in other.dir.names() {
            fs::copy(other.dir.path().join(&own), dir.path().join(&own)).unwrap();
        }
        assert!(faults().await.contains("of another installation"), "{}", faults().await);
        let before = today(service).await - chrono::TimeDelta::days(8);
        let refused = archive(service, dir, before).await.unwrap_err().to_string();
        assert!(refused.contains("is of another installation"), "{refused}");
        let refused = restore(&service.db, &file, &[notary().verifier()], &mut |_| {}).await.unwrap_err().to_string();
        assert!(refused.contains("of another installation"), "{refused}");
    }
}

#[tokio::test]
async fn what_forbids_an_archive_is_said_before_anything_is_written() {
    for stream in STREAMS {
        let Book { service, dir, before, .. } = &old(stream).await;
        let (name, table) = (stream.as_str(), stream.table());
        let day = chrono::TimeDelta::days(1);
        let refused = async |path: &Path, before: NaiveDate| {
            let directory = Directory { path: path.to_owned(), data_dir: Some(dir.path().to_owned()) };
            let done = archive::archive(&service.db, &notary(), &directory, all(before), &mut |_| {}).await;
            assert_eq!(first_here(service, stream).await, 1);
            assert_eq!(service.count("SELECT count(*) FROM audit_archive").await, 0);
            done.map(|plan| plan.parts.len()).unwrap_err().to_string()
        };
        let said = refused(dir.path(), *before + day).await;
        assert!(said.contains("less than 8 days ago") && said.contains(&before.to_string()), "{said}");
        assert!(refused(dir.path(), today(service).await + day).await.contains("is in the future"));
        let missing = dir.path().join("missing");
        assert!(refused(&missing, *before).await.contains("mkdir -p"));
        let inside = dir.path().join("pg/base");
        fs::create_dir_all(&inside).unwrap();
        assert!(refused(&inside, *before).await.contains("inside of the database's own files"));
        let file = dir.path().join(first(stream));
        fs::write(&file, "something else").unwrap();
        assert!(refused(dir.path(), *before).await.contains("exists and is not the segment"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "something else");
        fs::remove_file(&file).unwrap();
        if stream == Stream::Risk {
            let key = "INSERT INTO idempotency_key (day, principal, key, route, fields, risk_seq, at)
                   SELECT (holdfast_now() AT TIME ZONE 'UTC')::date, 'p', 'k', 'r', '{}', 2, holdfast_now()";
            service.pool.execute(key).await.unwrap();
            assert!(refused(dir.path(), *before).await.contains("points to event 2 of risk"));
            service.pool.execute("DELETE FROM idempotency_key").await.unwrap();
        }
        for (damage, repair, said) in [
            (
                "UPDATE risk_event SET actor = 'b' WHERE seq = 2",
                "UPDATE risk_event SET actor = 'a' WHERE seq = 2",
                "2: edited",
            ),
            (
                "INSERT INTO risk_event SELECT (jsonb_populate_record(event, '{\"seq\": 9}')).* FROM risk_event AS event WHERE seq = 6",
                "DELETE FROM risk_event WHERE seq = 9",
                "has event 9 beyond its head",
            ),
        ] {
            let guarded = |sql: &str| {
                AssertSqlSafe(format!(
                    "ALTER TABLE {table} DISABLE TRIGGER guard; {}; ALTER TABLE {table} ENABLE ALWAYS TRIGGER guard",
                    sql.replace("risk_event", table)
                ))
            };
            service.pool.execute(sqlx::raw_sql(guarded(damage))).await.unwrap();
            let refusal = refused(dir.path(), *before).await;
            assert!(refusal.contains(&format!("{name} {said}")), "{refusal}");
            service.pool.execute(sqlx::raw_sql(guarded(repair))).await.unwrap();
        }
        assert_eq!(dir.names(), ["pg"]);
        assert_eq!(archive(service, dir, *before).await.unwrap().parts.len(), 1);
    }
}

#[tokio::test]
async fn checkpoints_and_marks_that_name_archived_events_still_hold() {
    for stream in STREAMS {
        let Book { service, dir, before, .. } = &old(stream).await;
        let signer = notary();
        let mut conn = service.db.connect_snapshot().await.unwrap();
        let (old, _) = signer.sign(&mut conn, service.db.history()).await.unwrap();
        drop(conn);
        assert_eq!(old.heads[&stream].seq, 6);
        // As a process that has not looked since event 2.
        let sql = AssertSqlSafe(format!("SELECT hash FROM {} WHERE seq = 2", stream.table()));
        let hash: Vec<u8> = sqlx::query_scalar(sql).fetch_one(&service.pool).await.unwrap();
        let seen = Point { seq: 2, hash: hash.try_into().unwrap() };
        archive(service, dir, *before).await.unwrap();
        let (next, note) = {
            let mut conn = service.db.connect_snapshot().await.unwrap();
            signer.sign(&mut conn, service.db.history()).await.unwrap()
        };
        assert_eq!(believe(&note, &signer.verifier()).unwrap(), next);
        let mut conn = service.db.connect_snapshot().await.unwrap();
        let heads = BTreeMap::from([(stream, seen)]);
        let lost = holdfast::db::history::losses(&mut conn, &[heads]).await.unwrap();
        assert!(lost.is_empty(), "{lost:?}");
        // A notary that has signed nothing yet begins with what is there.
        let (first, _) = notary().sign(&mut conn, service.db.history()).await.unwrap();
        assert_eq!(first.heads, next.heads);
    }
}

#[tokio::test]
async fn of_two_archives_at_once_one_says_who_is_at_it_and_nothing_is_lost() {
    for stream in STREAMS {
        let Book { service, dir, before, .. } = &old(stream).await;
        let mut holder = service.pool.begin().await.unwrap();
        holder.execute("LOCK TABLE audit_archive IN SHARE UPDATE EXCLUSIVE MODE").await.unwrap();
        let refused = archive(service, dir, *before).await.unwrap_err().to_string();
        assert!(refused.contains("the database session") && refused.contains("archives or restores"), "{refused}");
        holder.rollback().await.unwrap();
        let (one, other) = tokio::join!(archive(service, dir, *before), archive(service, dir, *before));
        let done: usize = [one, other].into_iter().flatten().map(|plan| plan.parts.len()).sum();
        assert_eq!(done, 1);
        assert_eq!(checked(service, dir).await.faults, [""; 0]);
    }
}

#[tokio::test]
async fn a_long_read_delays_the_drop_and_no_event() {
    for stream in STREAMS {
        let Book { service, dir, before, .. } = &old(stream).await;
        let mut reader = service.pool.begin().await.unwrap();
        reader.execute(AssertSqlSafe(format!("SELECT count(*) FROM {}", stream.table()))).await.unwrap();
        let archiving = archive(service, dir, *before);
        let reserving = async {
            let mut slowest = std::time::Duration::ZERO;
            for _ in 0..40 {
                let began = tokio::time::Instant::now();
                append(service, stream).await.ok();
                slowest = slowest.max(began.elapsed());
                tokio::time::sleep(std::time::Duration::from_millis(25)).await;
            }
            reader.rollback().await.unwrap();
            slowest
        };
        let (archived, slowest) = tokio::join!(archiving, reserving);
        assert_eq!(archived.unwrap().parts.len(), 1);
        assert!(slowest < std::time::Duration::from_secs(2), "an event took {slowest:?}");
    }
}

#[tokio::test]
async fn a_row_that_claims_an_archive_without_its_event_hides_nothing() {
    for stream in STREAMS {
        let service = ending_with(stream, 2).await;
        make_ahead(&service.db).await.unwrap();
        for _ in 0..6 {
            append(&service, stream).await.ok();
        }
        // As an owner of the database would: the first events are gone, and a row says that they are archived.
        let (name, table) = (stream.as_str(), stream.table());
        let more = if stream == Stream::Risk { ", risk_reservation_1" } else { "" };
        let forged = format!("INSERT INTO audit_archive (stream, first_seq, last_seq, hash_before, last_hash, last_at, file, sha256, bytes, archived_at)
             SELECT '{name}', 1, 2, decode(repeat('00', 32), 'hex'), hash, at, '{name}-1-2.ndjson.zst', repeat('ab', 32), 1, at
             FROM {table} WHERE seq = 2;
             DROP TABLE {table}_1{more}");
        service.pool.execute(sqlx::raw_sql(AssertSqlSafe(forged))).await.unwrap();
        let verified = service.get(&format!("/audit/verify?stream={name}")).await.ok();
        assert_eq!(verified["findings"][0]["kind"], "deleted", "{verified}");
        assert!(
            verified["findings"][0]["detail"].as_str().unwrap().contains("no event of the control stream"),
            "{verified}"
        );
    }
}

#[tokio::test]
async fn a_row_in_the_place_of_archived_events_is_named() {
    for stream in STREAMS {
        let Book { service, dir, .. } = archived_book(stream).await;
        let table = stream.table();
        let put = format!(
            "CREATE TABLE {table}_1 (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
             INSERT INTO {table}_1 SELECT * FROM {table} ORDER BY seq LIMIT 1;
             UPDATE {table}_1 SET seq = 3;
             ALTER TABLE {table} ATTACH PARTITION {table}_1 FOR VALUES FROM (1) TO (5)"
        );
        service.pool.execute(sqlx::raw_sql(AssertSqlSafe(put))).await.unwrap();
        let verified = service.get(&format!("/audit/verify?stream={}", stream.as_str())).await.ok();
        assert_eq!(
            (&verified["findings"][0]["kind"], &verified["findings"][0]["seq"]),
            (&json!("inserted"), &json!(3)),
            "{verified}"
        );
        let gone = format!("ALTER TABLE {table} DETACH PARTITION {table}_1; DROP TABLE {table}_1");
        service.pool.execute(sqlx::raw_sql(AssertSqlSafe(gone))).await.unwrap();
        drop(dir);
    }
}

#[tokio::test]
async fn a_clock_that_jumped_ahead_archives_nothing_that_is_new() {
    for stream in STREAMS {
        let service = ending_with(stream, 2).await;
        make_ahead(&service.db).await.unwrap();
        for _ in 0..4 {
            append(&service, stream).await.ok();
        }
        // The database's clock alone: no time has passed.
        service.jump("400 days").await;
        let dir = Dir::new();
        let day = today(&service).await - chrono::TimeDelta::days(200);
        let Err(ArchiveError::Refused(why)) = archive(&service, &dir, day).await else { panic!("it was archived") };
        assert!(why.contains("is in the future"), "{why}");
        assert_eq!(dir.names(), [""; 0]);
        service.jump("0").await;
    }
}

#[tokio::test]
async fn a_pipe_and_a_flood_of_bytes_in_the_place_of_a_segment_are_refused() {
    for stream in STREAMS {
        let Book { service, dir, .. } = archived_book(stream).await;
        let path = dir.path().join(first(stream));
        let whole = fs::read(&path).unwrap();
        // Zeros without an end of line, a thousand times as many as their bytes.
        let flood = zstd::encode_all(&vec![0; 64 << 20][..], 3).unwrap();
        fs::write(&path, [&whole[..], &flood[..]].concat()).unwrap();
        assert!(checked(&service, &dir).await.faults[0].contains("it goes on behind its last line"));
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(checked(&service, &dir).await.faults[0].contains("it is not a file"));
    }
}

#[tokio::test]
async fn a_verification_of_one_stream_says_nothing_of_the_segments_of_another() {
    for stream in STREAMS {
        let Book { service, dir, .. } = archived_book(stream).await;
        fs::write(dir.path().join(first(stream)), "damaged").unwrap();
        let of_another = checked_only(&service, &dir, Some(Stream::Kpi)).await;
        assert!(of_another.faults.is_empty() && of_another.ignored.is_empty(), "{of_another:?}");
        assert_eq!(checked_only(&service, &dir, Some(stream)).await.faults.len(), 1);
    }
}
