//! The rules: the class of each method and path, for Holdfast's own routes and for every service that it guards.
//!
//! A rule is a path template with a class, for one method or for all. In a template, `{name}` matches one segment that
//! is not empty, and a final `/**` matches the path before it and everything below. All else is compared byte by byte,
//! a whole segment at a time: `/api/governanceX` is not below `/api/governance`, and `/healthz` is not `/health`. A
//! path with a trailing slash is another path.
//!
//! Invariants:
//! - **The most specific rule wins**: from the left, a literal segment before `{name}` before `/**`; where two
//!   templates are the same, the one that names the method. A rule for GET holds for HEAD, too.
//! - **Unknown is `PROD_EXEC`**, the class that is blocked first, whatever the method.
//! - Only method and path are read: never the query, never a header, so no override or rewrite header can move a
//!   request.
//! - "Exempt" means "not blocked by the switch", not "public". Only the defaults exempt; a file cannot.
//!
//! A look-up walks the segments of the path down a tree. It allocates nothing.

use super::path::canonical;
use crate::types::{ExecutionClass, RouteClass};
use axum::http::Method;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::ops::Range;
use toml::Spanned;

/// The paths that the switch never blocks.
const EXEMPT: [&str; 10] = [
    "/",
    "/api/governance/**",
    "/console/**",
    "/docs/**",
    "/health",
    "/livez",
    "/metrics",
    "/ofrep/**",
    "/openapi.json",
    "/readyz",
];

/// The most segments of a template, and so the depth of a look-up.
const SEGMENTS_MAX: usize = 64;

/// The business's routes, as the original service defined them.
const DEFAULTS: [(&str, ExecutionClass); 8] = [
    ("/api/alerts/**", ExecutionClass::ProdExec),
    ("/api/buyers/**", ExecutionClass::ProdExec),
    ("/api/capital/**", ExecutionClass::ProdExec),
    ("/api/deals/**", ExecutionClass::ProdExec),
    ("/api/followups/**", ExecutionClass::ProdExec),
    ("/api/intake/**", ExecutionClass::ProdExec),
    ("/api/notify/**", ExecutionClass::ProdExec),
    ("/api/sandbox/**", ExecutionClass::SandboxExec),
];

/// The class of each method and path.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The tree; the first node is the root.
    nodes: Vec<Node>,
    /// The digest of the file that completes the defaults; none for the defaults alone.
    digest: Option<String>,
}

/// A node of the tree: the rules for the segments so far.
#[derive(Debug, Clone, Default)]
struct Node {
    /// The next segments by name, shorter names first: most names differ by their length alone.
    literals: Vec<(Box<[u8]>, usize)>,
    /// The branch for any segment.
    parameter: Option<usize>,
    /// The rules for the path that ends here.
    here: ByMethod,
    /// The rules for that path and everything below.
    below: ByMethod,
}

/// The rules of one template.
#[derive(Debug, Clone, Default)]
struct ByMethod {
    named: Vec<(Method, RouteClass)>,
    any: Option<RouteClass>,
}

impl ByMethod {
    fn of(&self, method: &Method) -> Option<RouteClass> {
        if self.named.is_empty() {
            return self.any;
        }
        let named = |wanted: &Method| self.named.iter().find(|(named, _)| named == wanted).map(|(_, class)| *class);
        // The row of GET also serves HEAD.
        let get = || if *method == Method::HEAD { named(&Method::GET) } else { None };
        named(method).or_else(get).or(self.any)
    }
}

/// The error in a file of rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct RulesError {
    /// The line of the error, counted from 1.
    pub line: usize,
    /// The fault and the fix.
    pub reason: String,
}

/// A file of rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Spanned<Entry>>,
}

/// One rule of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: Spanned<String>,
    class: Spanned<String>,
    method: Option<Spanned<String>>,
}

impl Default for Rules {
    fn default() -> Self {
        let mut rules = Self { nodes: vec![Node::default()], digest: None };
        let exempt = EXEMPT.map(|template| (template, RouteClass::Exempt));
        let defaults = DEFAULTS.map(|(template, class)| (template, RouteClass::Class(class)));
        for (template, class) in exempt.into_iter().chain(defaults) {
            rules.set(template, None, class);
        }
        rules
    }
}

impl Rules {
    /// The defaults, completed by a file:
    ///
    /// ```toml
    /// [[rule]]
    /// path = "/api/deals/{id}"   # one segment; "/api/deals/**" is the path and all below it
    /// method = "GET"             # left out: every method
    /// class = "OBSERVE_ONLY"     # or SANDBOX_EXEC, PROD_EXEC
    /// ```
    ///
    /// A rule for the template and method of a default replaces it, unless that one is exempt.
    ///
    /// ```
    /// use holdfast::enforcement::{ExecutionClass, RouteClass, Rules};
    ///
    /// let rules = Rules::with_file(
    ///     r#"
    ///     [[rule]]
    ///     path = "/api/deals/{id}"
    ///     method = "GET"
    ///     class = "OBSERVE_ONLY"
    ///     "#,
    /// )?;
    /// let get = axum::http::Method::GET;
    /// assert_eq!(rules.classify(&get, "/api/deals/7"), RouteClass::Class(ExecutionClass::ObserveOnly));
    /// assert_eq!(rules.classify(&get, "/api/deals/7/close"), RouteClass::Class(ExecutionClass::ProdExec));
    /// # Ok::<(), holdfast::enforcement::rules::RulesError>(())
    /// ```
    pub fn with_file(text: &str) -> Result<Self, RulesError> {
        let at = |span: Range<usize>, reason: String| RulesError { line: line_of(text, span.start), reason };
        let file: File = toml::from_str(text)
            .map_err(|error| at(error.span().unwrap_or_default(), error.message().replace('\n', " ")))?;
        let defaults = Self::default();
        let mut rules = defaults.clone();
        let mut seen: HashSet<(String, Option<Method>)> = HashSet::new();
        for rule in file.rule {
            let entry = rule.into_inner();
            let class = class(entry.class.get_ref()).map_err(|reason| at(entry.class.span(), reason))?;
            let template = entry.path.get_ref();
            check_template(template, class).map_err(|reason| at(entry.path.span(), reason))?;
            let method = match &entry.method {
                Some(name) => Some(method(name.get_ref()).map_err(|reason| at(name.span(), reason))?),
                None => None,
            };
            // A template is not a path, but an exemption covers everything below it.
            let plain = template.strip_suffix("/**").unwrap_or(template);
            if defaults.classify(&Method::GET, plain) == RouteClass::Exempt {
                let reason = format!("path {template:?} is Holdfast's own and always exempt: leave the rule out");
                return Err(at(entry.path.span(), reason));
            }
            // Two names for the same parameter give the same template.
            let key = (nameless(template), method.clone());
            if !seen.insert(key) {
                let reason = format!("path {template:?} has a rule for this method already: keep one of the two");
                return Err(at(entry.path.span(), reason));
            }
            rules.set(template, method, RouteClass::Class(class));
        }
        let digest = crate::types::hex(&Sha256::digest(text.as_bytes()));
        rules.digest = Some(digest);
        Ok(rules)
    }

    /// The SHA-256 of the file that completes the defaults, lower-case hex; none for the defaults alone. Instances with
    /// different digests enforce different rules.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The class of a request by its canonical path ([`canonical`]).
    #[must_use]
    pub fn classify(&self, method: &Method, canonical_path: &str) -> RouteClass {
        let rest = canonical_path.as_bytes().get(1..).filter(|rest| !rest.is_empty());
        self.find(0, method, rest).unwrap_or(RouteClass::Class(ExecutionClass::ProdExec))
    }

    /// The most specific rule below a node for the rest of the path.
    fn find(&self, at: usize, method: &Method, rest: Option<&[u8]>) -> Option<RouteClass> {
        let node = &self.nodes[at];
        let Some(rest) = rest else {
            return node.here.of(method).or_else(|| node.below.of(method));
        };
        // A plain loop: segments are short.
        let (segment, tail) = match rest.iter().position(|byte| *byte == b'/') {
            Some(end) => (&rest[..end], Some(&rest[end + 1..])),
            None => (rest, None),
        };
        if let Some(next) = node.literal(segment)
            && let Some(found) = self.find(next, method, tail)
        {
            return Some(found);
        }
        if let Some(next) = node.parameter.filter(|_| !segment.is_empty())
            && let Some(found) = self.find(next, method, tail)
        {
            return Some(found);
        }
        node.below.of(method)
    }

    /// Sets the class of a template, for one method or for all.
    fn set(&mut self, template: &str, method: Option<Method>, class: RouteClass) {
        let (path, below) = match template.strip_suffix("/**") {
            Some(path) => (path, true),
            None => (template, false),
        };
        let mut at = 0;
        for segment in
            path.strip_prefix('/').filter(|rest| !rest.is_empty()).into_iter().flat_map(|rest| rest.split('/'))
        {
            at = self.child(at, segment);
        }
        let node = &mut self.nodes[at];
        let rules = if below { &mut node.below } else { &mut node.here };
        match method {
            Some(method) => rules.named.push((method, class)),
            None => rules.any = Some(class),
        }
    }

    /// The node for a segment of a template.
    fn child(&mut self, at: usize, segment: &str) -> usize {
        let next = self.nodes.len();
        let node = &mut self.nodes[at];
        let found = if is_parameter(segment) {
            *node.parameter.get_or_insert(next)
        } else {
            match node.place(segment.as_bytes()) {
                Ok(index) => node.literals[index].1,
                Err(index) => {
                    node.literals.insert(index, (segment.as_bytes().into(), next));
                    next
                }
            }
        };
        if found == next {
            self.nodes.push(Node::default());
        }
        found
    }
}

impl Node {
    fn literal(&self, segment: &[u8]) -> Option<usize> {
        let found = self.place(segment).ok()?;
        Some(self.literals[found].1)
    }

    /// The place of a name among the next segments, or the place to insert it.
    fn place(&self, segment: &[u8]) -> Result<usize, usize> {
        self.literals
            .binary_search_by(|(name, _)| name.len().cmp(&segment.len()).then_with(|| name.as_ref().cmp(segment)))
    }
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{') && segment.ends_with('}')
}

/// The template without the names of its parameters.
fn nameless(template: &str) -> String {
    template.split('/').map(|segment| if is_parameter(segment) { "{}" } else { segment }).collect::<Vec<_>>().join("/")
}

fn class(name: &str) -> Result<ExecutionClass, String> {
    use ExecutionClass::{ObserveOnly, ProdExec, SandboxExec};
    [ObserveOnly, SandboxExec, ProdExec]
        .into_iter()
        .find(|class| class.as_str() == name)
        .ok_or_else(|| format!("class {name:?} is unknown: it must be one of OBSERVE_ONLY, SANDBOX_EXEC, PROD_EXEC"))
}

fn method(name: &str) -> Result<Method, String> {
    let upper = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    let parsed = Method::from_bytes(name.as_bytes()).ok().filter(|_| upper);
    parsed
        .ok_or_else(|| format!("method {name:?} is not a method: write it in capitals, one per rule, or leave it out"))
}

/// Checks that a canonical path can match the template, and that the template does not cover unknown paths by accident.
fn check_template(template: &str, class: ExecutionClass) -> Result<(), String> {
    let path = template.strip_suffix("/**").unwrap_or(template);
    let mut plain = String::new();
    let mut names = Vec::new();
    let mut segments = path.split('/');
    if segments.next() != Some("") || template.is_empty() {
        return Err(format!("path {template:?} does not begin with a slash"));
    }
    for segment in segments {
        plain.push('/');
        if is_parameter(segment) {
            let name = &segment[1..segment.len() - 1];
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !is_name || names.contains(&name) {
                return Err(format!(
                    "path {template:?}: {segment:?} is not a parameter, or is there twice: write {{name}}"
                ));
            }
            names.push(name);
            plain.push('x');
        } else if segment.contains(['{', '}', '*']) {
            return Err(format!(
                "path {template:?}: {segment:?} is mixed: a parameter must be a whole segment, /** must be the end"
            ));
        } else {
            plain.push_str(segment);
        }
    }
    if path.split('/').count() > SEGMENTS_MAX {
        return Err(format!("path {template:?} has more than {SEGMENTS_MAX} segments"));
    }
    canonical(if plain.is_empty() { "/" } else { &plain })
        .map_err(|refused| format!("path {template:?}: {refused}"))?;
    let first = path.split('/').nth(1).unwrap_or_default();
    if class != ExecutionClass::ProdExec && (first.is_empty() || is_parameter(first)) {
        return Err(format!("path {template:?} would reclassify everything unknown: begin with the name of a segment"));
    }
    Ok(())
}

/// The line of a byte, counted from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
