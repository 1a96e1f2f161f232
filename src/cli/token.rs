//! The commands `holdfast token` and `holdfast two-person-release`, for the owner of the database.

use super::database::{close_after, open_existing, open_migrated};
use super::output::{Failure, print};
use crate::access;
use crate::access::model::{CreatedToken, NewToken, TokenRecord};
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
    /// Create a token, and print it once.
    Create(Box<CreateArgs>),
    /// List every token that was ever created, newest first. The tokens themselves are stored nowhere.
    List,
    /// Revoke a token. It is refused on every instance within 2 s.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The token's name in events.
    #[arg(long)]
    name: TokenName,
    /// The token's rights: read, reserve, measure, recommend, operate, release, proxy, admin, kill, separated by
    /// commas; evidence is measure and recommend.
    #[arg(long)]
    scopes: List<Scope>,
    /// The person responsible for the token. The second person must be another owner.
    #[arg(long)]
    owner: Option<Actor>,
    /// The engines that it may change [default: all].
    #[arg(long)]
    engines: Option<List<Engine>>,
    /// The domains that it may change [default: all].
    #[arg(long)]
    domains: Option<List<Domain>>,
    /// The lifetime, such as 12h or 30d [default: until it is revoked].
    #[arg(long, value_name = "TIME")]
    expires: Option<Lifetime>,
    /// The most requests per second on each instance.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<Rate>,
    /// The largest loss of one settle or correction [default: no limit].
    #[arg(long, value_name = "AMOUNT")]
    max_loss: Option<Amount>,
    /// The actor who creates it.
    #[arg(long)]
    actor: Option<Actor>,
    /// The reason.
    #[arg(long)]
    reason: Option<Reason>,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The token's id: the 16 hex digits between hf_ and the secret.
    pub(super) id: TokenId,
    /// The actor who revokes it.
    #[arg(long)]
    pub(super) actor: Option<Actor>,
    /// The reason.
    #[arg(long)]
    pub(super) reason: Option<Reason>,
}

#[derive(Debug, Args)]
pub(super) struct TwoPersonArgs {
    /// `on` or `off`.
    pub(super) setting: Switch,
    /// The actor who sets it.
    #[arg(long)]
    pub(super) actor: Option<Actor>,
    /// The reason.
    #[arg(long)]
    pub(super) reason: Option<Reason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

/// Sets for every instance whether changes that loosen wait for a second person.
pub(super) async fn two_person(args: TwoPersonArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let (db, postgres, name) = open_existing(config).await?;
    let (on, origin) = (args.setting == Switch::On, Origin::system(args.actor));
    let changed = approval::require_second_person(&db, on, args.reason.as_ref(), &origin).await;
    let printed = changed.map_err(Failure::from).and_then(|changed| {
        let (state, before) = (if on { "on" } else { "off" }, if changed { "" } else { ", as before" });
        print(&format!("two_person_release is {state} in {name}{before}\n"))
    });
    close_after(printed, db, postgres).await
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
    // A token in another database than the server's would be useless.
    let (db, postgres) = open_migrated(config).await?;
    let created = access::create(&db, &new, None, args.reason.as_ref(), &Origin::system(args.actor)).await;
    let printed = created.map_err(Failure::from).and_then(|created| print_token(&created));
    close_after(printed, db, postgres).await
}

/// Prints the token alone on standard output, so that a shell can keep it: TOKEN=$(holdfast token create ...).
fn print_token(created: &CreatedToken) -> Result<(), Failure> {
    for warning in &created.warnings {
        crate::log::say(&format!("warning: {warning}"));
    }
    let mut out = std::io::stdout().lock();
    // A closed pipe is an error here, since the token is lost.
    let written = writeln!(out, "{}", created.token).and_then(|()| out.flush());
    let id = &created.record.id;
    written.map_err(|error| {
        format!(
            "token {id} was created, but standard output failed ({error}), so the token is lost: revoke it with holdfast token revoke {id}, \
             and create another one"
        )
        .into()
    })
}

async fn list(config: &DatabaseConfig) -> Result<(), Failure> {
    let (db, postgres, _) = open_existing(config).await?;
    let listed = all(&db).await;
    let printed = listed.map_err(Failure::from).and_then(|listed| print(&listed));
    close_after(printed, db, postgres).await
}

/// Lists every token, one per line, read page by page.
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

/// One line for a token: its id, name, rights and times.
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
    let printed = revoked.map_err(Failure::from).and_then(|revoked| {
        let id = revoked.id;
        print(&format!("{id} is revoked in {name}: within 2 s every instance refuses it\n"))
    });
    close_after(printed, db, postgres).await
}
