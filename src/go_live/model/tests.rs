use super::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}

fn fresh() -> GoLiveState {
    let none = Movement { at: None, by: None, reason: None };
    GoLiveState {
        go_live_enabled: false,
        kill_switch_engaged: false,
        changed_by: None,
        reason: None,
        updated_at: at(0),
        version: 1,
        go_live: none.clone(),
        kill_switch: none,
    }
}

fn facts() -> Facts {
    let pack = |id: &str| Pack {
        id: id.into(),
        name: id.into(),
        version: "1".into(),
        status: PackStatus::Installed,
        changed_by: None,
        updated_at: at(0),
    };
    Facts {
        pending_migrations: 0,
        policies: [("risk", 4), ("heimdall", 4), ("regression", 4)],
        packs: LEVER_PACKS.iter().map(|id| pack(id)).collect(),
        required_packs: Vec::new(),
        kill_switch_engaged: false,
        kill_file: false,
        global_policy_active: Some(true),
        enforcement_off: None,
        tripped_wires: Vec::new(),
    }
}

#[test]
fn a_repeated_engage_keeps_the_first_and_counts() {
    let engaged = apply(&fresh(), Switch::Engage, Some("a"), Some("first"), at(1));
    let again = apply(&engaged, Switch::Engage, Some("b"), Some("second"), at(2));
    assert_eq!(again.kill_switch, engaged.kill_switch);
    assert_eq!((again.version, again.changed_by.as_deref(), again.reason.as_deref()), (3, Some("b"), Some("second")));
    let released = apply(&again, Switch::Release, None, None, at(3));
    assert!(!released.kill_switch_engaged);
    assert_eq!(released.kill_switch, Movement { at: Some(at(3)), by: None, reason: None });
}

#[test]
fn the_two_switches_keep_their_own_history() {
    let enabled = apply(&fresh(), Switch::Enable, Some("a"), None, at(1));
    let engaged = apply(&enabled, Switch::Engage, Some("b"), None, at(2));
    assert!(engaged.go_live_enabled && engaged.kill_switch_engaged);
    assert_eq!(engaged.go_live.by.as_deref(), Some("a"));
    assert_eq!(engaged.kill_switch.by.as_deref(), Some("b"));
    let disabled = apply(&engaged, Switch::Disable, Some("c"), None, at(3));
    assert!(!disabled.go_live_enabled && disabled.kill_switch_engaged);
}

#[test]
fn if_match_names_the_version_in_any_spelling() {
    for header in [None, Some("*"), Some("\"7\""), Some("W/\"7\""), Some("7"), Some("\"6\", \"7\"")] {
        assert!(if_match_allows(header, 7), "{header:?}");
    }
    for header in ["\"6\"", "", "x", "\"77\""] {
        assert!(!if_match_allows(Some(header), 7), "{header}");
    }
}

#[test]
fn a_complete_install_passes() {
    let checklist = Checklist::judge(&facts());
    assert!(checklist.ok && checklist.warnings.is_empty() && checklist.blockers().is_empty());
    assert_eq!(checklist.required.packs_installed.detail.total, 4);
}

#[test]
fn each_missing_thing_fails_by_name() {
    let pending = Facts { pending_migrations: 1, ..facts() };
    assert_eq!(Checklist::judge(&pending).blockers()[0].id, "backend_complete");
    let no_policy = Facts { policies: [("risk", 4), ("heimdall", 0), ("regression", 4)], ..facts() };
    assert!(Checklist::judge(&no_policy).blockers()[0].detail.contains("heimdall"));
    let required = Facts { required_packs: vec!["crm".parse().unwrap()], ..facts() };
    let checklist = Checklist::judge(&required);
    assert!(!checklist.ok);
    assert_eq!(checklist.required.packs_installed.detail.missing_or_not_installed, ["crm"]);
    assert_eq!(checklist.required.packs_installed.detail.total, 5);
    let mut broken = facts();
    broken.packs[1].status = PackStatus::Missing;
    assert_eq!(Checklist::judge(&broken).required.packs_installed.detail.missing_or_not_installed, ["risk"]);
}

#[test]
fn warnings_name_what_stands() {
    let facts = Facts {
        kill_switch_engaged: true,
        kill_file: true,
        global_policy_active: Some(false),
        enforcement_off: Some("ENV=development"),
        tripped_wires: vec!["A.b".into()],
        ..facts()
    };
    let checklist = Checklist::judge(&facts);
    assert!(checklist.ok, "warnings do not stop an enable");
    let names: Vec<_> = checklist.warnings.keys().copied().collect();
    let all = ["enforcement_off", "global_policy_disabled", "kill_file", "kill_switch_engaged", "tripped_wires"];
    assert_eq!(names, all);
}
