use super::*;
use proptest::prelude::*;

const PROD: RouteClass = RouteClass::Class(ExecutionClass::ProdExec);
const SANDBOX: RouteClass = RouteClass::Class(ExecutionClass::SandboxExec);
const OBSERVE: RouteClass = RouteClass::Class(ExecutionClass::ObserveOnly);

/// The class of a path under the defaults, for GET.
fn default_class(path: &str) -> RouteClass {
    Rules::default().classify(&Method::GET, path)
}

fn method_named(name: &str) -> Method {
    Method::from_bytes(name.as_bytes()).expect("a method")
}

#[test]
fn exempt_subtrees_end_at_a_segment_boundary() {
    for name in ["/api/governance", "/docs", "/console", "/ofrep"] {
        for below in ["", "/", "/x", "/x/y/", "/%20"] {
            assert_eq!(default_class(&format!("{name}{below}")), RouteClass::Exempt, "{name}{below}");
        }
        for beside in ["X", "-evil", "-evil/x", "s", ".json", "%20", "_", ":x"] {
            assert_eq!(default_class(&format!("{name}{beside}")), PROD, "{name}{beside}");
        }
        assert_eq!(default_class(&format!("/x{name}")), PROD);
    }
}

#[test]
fn exact_exemptions_cover_nothing_else() {
    for name in "/health /livez /readyz /metrics /openapi.json".split(' ') {
        assert_eq!(default_class(name), RouteClass::Exempt, "{name}");
        for beside in ["/", "/x", "z", "-x", "%20", ".json"] {
            assert_eq!(default_class(&format!("{name}{beside}")), PROD, "{name}{beside}");
        }
        assert_eq!(default_class(&name.to_uppercase()), PROD, "{name}");
    }
    assert_eq!(default_class("/"), RouteClass::Exempt);
}

#[test]
fn the_default_rules_hold_below_their_segment() {
    for name in "deals intake buyers capital alerts notify followups".split(' ') {
        // An unknown path is PROD_EXEC too, so only the table itself shows a missing rule.
        assert!(DEFAULTS.contains(&(&*format!("/api/{name}/**"), ExecutionClass::ProdExec)), "{name}");
    }
    assert_eq!(default_class("/api/sandbox"), SANDBOX);
    assert_eq!(default_class("/api/sandbox/"), SANDBOX);
    assert_eq!(default_class("/api/sandbox/runs/7"), SANDBOX);
}

#[test]
fn unknown_paths_are_prod_exec_for_every_method() {
    const PATHS: &str = "/api /api/ /api/sandboxes /API/sandbox /docs.html /x";
    for path in PATHS.split(' ') {
        for method in "GET HEAD OPTIONS TRACE CONNECT PATCH PROPFIND get".split(' ') {
            assert_eq!(Rules::default().classify(&method_named(method), path), PROD, "{method} {path}");
        }
    }
}

fn rules(entries: &[(&str, Option<&str>, &str)]) -> Rules {
    Rules::with_file(&file(entries)).unwrap_or_else(|error| panic!("{error}"))
}

fn file(entries: &[(&str, Option<&str>, &str)]) -> String {
    let entry = |(path, method, class): &(&str, Option<&str>, &str)| {
        let method = method.map_or_else(String::new, |name| format!("method = \"{name}\"\n"));
        format!("[[rule]]\npath = \"{path}\"\n{method}class = \"{class}\"\n")
    };
    entries.iter().map(entry).collect()
}

#[test]
fn the_most_specific_rule_wins_whatever_the_order() {
    let mut entries = vec![
        ("/api/deals/**", None, "SANDBOX_EXEC"),
        ("/api/deals/{id}", None, "PROD_EXEC"),
        ("/api/deals/{id}", Some("GET"), "OBSERVE_ONLY"),
        ("/api/deals/all", None, "SANDBOX_EXEC"),
        ("/api/{area}/audit", None, "OBSERVE_ONLY"),
    ];
    for _ in 0..entries.len() {
        entries.rotate_left(1);
        let rules = rules(&entries);
        for (method, path, class) in [
            ("GET", "/api/deals", SANDBOX),
            ("GET", "/api/deals/7", OBSERVE),
            ("HEAD", "/api/deals/7", OBSERVE),
            ("POST", "/api/deals/7", PROD),
            ("get", "/api/deals/7", PROD),
            ("GET", "/api/deals/all", SANDBOX),
            ("GET", "/api/deals/7/offers", SANDBOX),
            ("GET", "/api/deals/", SANDBOX),
            // From the left, a literal is more specific than a parameter.
            ("GET", "/api/deals/audit", OBSERVE),
            ("POST", "/api/deals/audit", PROD),
            ("POST", "/api/loans/audit", OBSERVE),
            ("POST", "/api/loans/other", PROD),
            ("GET", "/api/capital/audit", PROD),
        ] {
            assert_eq!(rules.classify(&method_named(method), path), class, "{method} {path}");
        }
    }
}

#[test]
fn a_rule_for_another_method_hides_nothing() {
    let rules = rules(&[("/api/sandbox/runs", Some("POST"), "PROD_EXEC")]);
    assert_eq!(rules.classify(&Method::POST, "/api/sandbox/runs"), PROD);
    assert_eq!(rules.classify(&Method::GET, "/api/sandbox/runs"), SANDBOX);
}

#[test]
fn a_file_may_be_empty_and_rules_may_replace_the_business_defaults() {
    assert_eq!(Rules::with_file("").expect("no rules").classify(&Method::GET, "/api/sandbox"), SANDBOX);
    let rules = rules(&[("/api/sandbox/**", None, "PROD_EXEC"), ("/api/deals/**", Some("GET"), "OBSERVE_ONLY")]);
    assert_eq!(rules.classify(&Method::GET, "/api/sandbox/x"), PROD);
    assert_eq!(rules.classify(&Method::GET, "/api/deals/7"), OBSERVE);
    assert_eq!(rules.classify(&Method::POST, "/api/deals/7"), PROD);
    assert!(rules.digest().is_some_and(|digest| digest.len() == 64));
}

#[test]
fn a_bad_file_is_refused_with_the_line_at_fault() {
    for (text, line, word) in [
        ("[[rule]]\npath = \"/x\"\nclass = \"OBSERVE\"\n", 3, "OBSERVE_ONLY"),
        ("[[rule]]\npath = \"/x\"\nclass = \"EXEMPT\"\n", 3, "OBSERVE_ONLY"),
        ("[[rule]]\npath = \"x\"\nclass = \"PROD_EXEC\"\n", 2, "slash"),
        ("[[rule]]\npath = \"\"\nclass = \"PROD_EXEC\"\n", 2, "slash"),
        ("[[rule]]\npath = \"/x//y\"\nclass = \"PROD_EXEC\"\n", 2, "empty segment"),
        ("[[rule]]\npath = \"/x/../y\"\nclass = \"PROD_EXEC\"\n", 2, "dot segment"),
        ("[[rule]]\npath = \"/x%2fy\"\nclass = \"PROD_EXEC\"\n", 2, "encoded slash"),
        ("[[rule]]\npath = \"/x/{a}b\"\nclass = \"PROD_EXEC\"\n", 2, "whole segment"),
        ("[[rule]]\npath = \"/x/**/y\"\nclass = \"PROD_EXEC\"\n", 2, "the end"),
        ("[[rule]]\npath = \"/x/*\"\nclass = \"PROD_EXEC\"\n", 2, "the end"),
        ("[[rule]]\npath = \"/x/{}\"\nclass = \"PROD_EXEC\"\n", 2, "not a parameter"),
        ("[[rule]]\npath = \"/x/{a}/{a}\"\nclass = \"PROD_EXEC\"\n", 2, "twice"),
        ("\n\n[[rule]]\nclass = \"OBSERVE_ONLY\"\npath = \"/**\"\n", 5, "everything unknown"),
        ("[[rule]]\npath = \"/{x}/deals\"\nclass = \"SANDBOX_EXEC\"\n", 2, "everything unknown"),
        ("[[rule]]\npath = \"/api/governance/x\"\nclass = \"PROD_EXEC\"\n", 2, "exempt"),
        ("[[rule]]\npath = \"/docs/**\"\nclass = \"OBSERVE_ONLY\"\n", 2, "exempt"),
        ("[[rule]]\npath = \"/\"\nclass = \"PROD_EXEC\"\n", 2, "exempt"),
        ("[[rule]]\npath = \"/x\"\nmethod = \"get\"\nclass = \"PROD_EXEC\"\n", 3, "capitals"),
        ("[[rule]]\npath = \"/x\"\nmethod = \"GET,PUT\"\nclass = \"PROD_EXEC\"\n", 3, "capitals"),
        ("[[rule]]\npath = \"/x\"\nclas = \"PROD_EXEC\"\n", 3, "clas"),
        ("[[rule]]\nclass = \"PROD_EXEC\"\n", 1, "path"),
        ("[[rules]]\npath = \"/x\"\n", 1, "rules"),
        ("[[rule]]\npath = \"/x\"\nclass = PROD_EXEC\n", 3, ""),
        ("[[rule]]\npath = 7\nclass = \"PROD_EXEC\"\n", 2, "string"),
    ] {
        let refused = Rules::with_file(text).expect_err(text);
        assert_eq!(refused.line, line, "{text}: {refused}");
        assert!(refused.reason.contains(word), "{text}: {refused}");
    }
    let deep = file(&[(&"/x".repeat(64), None, "PROD_EXEC")]);
    assert!(Rules::with_file(&deep).expect_err("too deep").reason.contains("segments"));
    let twice = file(&[("/x/{a}", None, "PROD_EXEC"), ("/x/{b}", None, "OBSERVE_ONLY")]);
    let refused = Rules::with_file(&twice).expect_err("the same template");
    assert!(refused.line == 5 && refused.reason.contains("already"), "{refused}");
}

/// The rules in their simplest form: of all that match, the most specific.
fn reference(entries: &[(String, Option<&str>, ExecutionClass)], method: &str, path: &str) -> Option<ExecutionClass> {
    let rank = |template: &str| -> Option<Vec<u8>> {
        let (plain, below) = template.strip_suffix("/**").map_or((template, false), |plain| (plain, true));
        let wanted: Vec<&str> = plain.split('/').skip(1).collect();
        let given: Vec<&str> = path.split('/').skip(1).collect();
        let long_enough = if below { given.len() >= wanted.len() } else { given.len() == wanted.len() };
        let matches = |(wanted, given): (&&str, &&str)| wanted == given || (is_parameter(wanted) && !given.is_empty());
        if !long_enough || !wanted.iter().zip(&given).all(matches) {
            return None;
        }
        let mut rank: Vec<u8> = wanted.iter().map(|segment| if is_parameter(segment) { 2 } else { 3 }).collect();
        // An exact template ranks above /**, which ranks above nothing.
        rank.push(u8::from(!below));
        Some(rank)
    };
    entries
        .iter()
        .filter(|(_, wanted, _)| wanted.is_none_or(|wanted| wanted == method))
        .filter_map(|(template, wanted, class)| Some((rank(template)?, wanted.is_some(), *class)))
        .max_by_key(|(rank, named, _)| (rank.clone(), *named))
        .map(|(_, _, class)| class)
}

proptest! {
    #[test]
    fn lookups_agree_with_the_definition(
        templates in prop::collection::btree_set(
            (prop::collection::vec(prop::sample::select(vec!["a", "b", "{p}"]), 0..4), any::<bool>(), 0_usize..3),
            1..12,
        ),
        path in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 0..5),
        method in prop::sample::select(vec!["GET", "POST"]),
    ) {
        let classes = [ExecutionClass::ObserveOnly, ExecutionClass::SandboxExec, ExecutionClass::ProdExec];
        let mut entries = Vec::new();
        for (number, (segments, below, wanted)) in templates.into_iter().enumerate() {
            let mut names = 0;
            let mut template = String::from("/r");
            for segment in segments {
                template.push('/');
                if segment == "{p}" {
                    names += 1;
                    template += ["{p1}", "{p2}", "{p3}", "{p4}"][names - 1];
                } else {
                    template.push_str(segment);
                }
            }
            if below {
                template.push_str("/**");
            }
            entries.push((template, [None, Some("GET"), Some("POST")][wanted], classes[number % 3]));
        }
        let text: Vec<_> = entries.iter().map(|(path, method, class)| (path.as_str(), *method, class.as_str())).collect();
        let rules = rules(&text);
        let path = format!("/r/{}", path.join("/"));
        let path = path.strip_suffix('/').unwrap_or(&path);
        let expected = reference(&entries, method, path).unwrap_or(ExecutionClass::ProdExec);
        prop_assert_eq!(rules.classify(&method_named(method), path), RouteClass::Class(expected), "{} {}", method, path);
    }
}
