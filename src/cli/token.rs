//! `holdfast token`: the first token, and every other one, from the shell of whoever owns the database.

use super::database::{close, open_existing, open_migrated};
use super::{Failure, print};
use crate::access;
use crate::access::model::{NewToken, TokenRecord};
use crate::approval;
use crate::audit::Origin;
use crate::config::DatabaseConfig;
use crate::db::Database;
use crate::types::Scope;
use crate::types::{Actor, Amount, Domain, Engine, Lifetime, List, PageSize, Rate, Reason, TokenId, TokenName};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand, ValueEnum};
use std::fmt::Write as _;
use std::io::Write as _;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Create a token and print it, this once.
    Create(Box<CreateArgs>),
    /// List every token there ever was, newest first. The tokens themselves are kept nowhere.
    List,
    /// End a token, on every instance within two seconds.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Its name in events.
    #[arg(long)]
    name: TokenName,
    /// Its rights: read, reserve, measure, recommend, operate, release, proxy, admin, kill, with commas between them; evidence is measure and recommend.
    #[arg(long)]
    scopes: List<Scope>,
    /// The person who answers for it; a second person is one with another owner.
    #[arg(long)]
    owner: Option<Actor>,
    /// The only engines that it may change; all when left out.
    #[arg(long)]
    engines: Option<List<Engine>>,
    /// The only domains that it may change; all when left out.
    #[arg(long)]
    domains: Option<List<Domain>>,
    /// How long it lasts, like 12h or 30d; until it is revoked when left out.
    #[arg(long, value_name = "TIME")]
    expires: Option<Lifetime>,
    /// Requests a second and an instance.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<Rate>,
    /// The most that one settle or correction may lose; no bound when left out.
    #[arg(long, value_name = "AMOUNT")]
    max_loss: Option<Amount>,
    /// Who creates it.
    #[arg(long)]
    actor: Option<Actor>,
    /// Why.
    #[arg(long)]
    reason: Option<Reason>,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// Its id: the 16 hex digits between hf_ and the secret.
    pub(super) id: TokenId,
    /// Who revokes it.
    #[arg(long)]
    pub(super) actor: Option<Actor>,
    /// Why.
    #[arg(long)]
    pub(super) reason: Option<Reason>,
}

#[derive(Debug, Args)]
pub(super) struct TwoPersonArgs {
    /// `on` or `off`.
    pub(super) setting: Switch,
    /// Who sets it.
    #[arg(long)]
    pub(super) actor: Option<Actor>,
    /// Why.
    #[arg(long)]
    pub(super) reason: Option<Reason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

/// Switches the second person on or off, for every instance.
pub(super) async fn two_person(args: TwoPersonArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let (db, postgres, name) = open_existing(config).await?;
    let (on, origin) = (args.setting == Switch::On, Origin::system(args.actor));
    let changed = approval::require_second_person(&db, on, args.reason.as_ref(), &origin).await;
    close(db, postgres).await?;
    let (state, before) = (if on { "on" } else { "off" }, if changed? { "" } else { ", as it was before" });
    print(&format!("two_person_release is {state} in {name}{before}\n"))
}

pub(super) async fn run(command: TokenCommand, config: &DatabaseConfig) -> Result<(), Failure> {
    match command {
        TokenCommand::Create(args) => create(*args, config).await,
        TokenCommand::List => list(config).await,
        TokenCommand::Revoke(args) => revoke(args, config).await,
    }
}

async fn create(args: CreateArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let new = NewToken {
        name: args.name,
        owner: args.owner,
        scopes: args.scopes.0,
        engines: args.engines.map(|list| list.0),
        domains: args.domains.map(|list| list.0),
        expires_in: args.expires,
        rate_per_second: args.rate.map(Rate::get),
        max_loss: args.max_loss,
    };
    // In another database than the service's, a token would open nothing.
    let (db, postgres) = open_migrated(config).await?;
    let created = access::create(&db, &new, None, args.reason.as_ref(), &Origin::system(args.actor)).await;
    close(db, postgres).await?;
    // Nothing else on standard output, so that a shell can keep it: TOKEN=$(holdfast token create ...).
    let created = created?;
    for warning in &created.warnings {
        crate::log::say(&format!("warning: {warning}"));
    }
    let mut out = std::io::stdout().lock();
    // A reader has not read enough before the token: also a closed pipe has lost it.
    let written = writeln!(out, "{}", created.token).and_then(|()| out.flush());
    let id = &created.record.id;
    written.map_err(|error| {
        format!(
            "token {id} was created, and standard output did not take it ({error}): nobody has it, and it is shown to nobody again. Revoke \
             it with holdfast token revoke {id}, and create another one"
        )
        .into()
    })
}

async fn list(config: &DatabaseConfig) -> Result<(), Failure> {
    let (db, postgres, _) = open_existing(config).await?;
    let listed = all(&db).await;
    close(db, postgres).await?;
    print(&listed?)
}

/// Every token there ever was, a line each. Read a page at a time.
async fn all(db: &Database) -> crate::error::Result<String> {
    let (mut text, mut after) = (String::new(), None);
    loop {
        let page = access::list(db, after, PageSize::MAX).await?;
        for token in &page.tokens {
            let _ = writeln!(text, "{}", line(token));
        }
        if page.next.is_none() {
            return Ok(text);
        }
        after = page.next;
    }
}

/// A token in a line: its id, its name, what it may do, and how it stands.
fn line(token: &TokenRecord) -> String {
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let scopes: Vec<_> = token.scopes.iter().map(|scope| scope.as_str()).collect();
    let mut line = format!("{} {} {}", token.id, token.name, scopes.join(","));
    for (what, list) in [("engines", &token.engines), ("domains", &token.domains)] {
        if let Some(list) = list {
            let _ = write!(line, " {what}={}", list.join(","));
        }
    }
    if let Some(loss) = token.max_loss {
        let _ = write!(line, " max_loss={loss}");
    }
    if let Some(owner) = &token.owner {
        let _ = write!(line, " owner={owner:?}");
    }
    let _ = write!(line, " created={}", time(token.created_at));
    for (what, at) in [("expires", token.expires_at), ("used", token.last_used_at), ("REVOKED", token.revoked_at)] {
        if let Some(at) = at {
            let _ = write!(line, " {what}={}", time(at));
        }
    }
    line
}

async fn revoke(args: RevokeArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let (db, postgres, name) = open_existing(config).await?;
    let revoked = access::revoke(&db, args.id, args.reason.as_ref(), &Origin::system(args.actor)).await;
    close(db, postgres).await?;
    let revoked = revoked?;
    print(&format!("{} is revoked in {name}: it opens nothing on any instance from 2 s after this on\n", revoked.id))
}
