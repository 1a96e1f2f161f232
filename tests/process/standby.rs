//! A primary and a standby of a cluster of their own, behind one address that can be pointed at either of them.

use crate::support::{Place, Running, Session, signal, wait_until};
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The role that owns everything.
const ROLE: &str = "holdfast";
/// Of every node: the directory of its socket tells them apart.
const PORT: u16 = 5432;
/// `nobody`, where the system has no `postgres`.
const NOBODY: (u32, u32) = (65_534, 65_534);

/// Whether a commit waits for the standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replication {
    Synchronous,
    Asynchronous,
}

/// The two servers. `DATABASE_URL` of the service is [`Nodes::url`].
pub(crate) struct Nodes {
    pub(crate) primary: Node,
    pub(crate) standby: Node,
    address: PathBuf,
}

impl Nodes {
    /// Makes both and waits until the standby follows. The address points at the primary.
    pub(crate) fn start(place: &Place, replication: Replication) -> Self {
        let address = place.path("address");
        let primary = Node::alone(place, "primary");
        let mut standby = Node::new(place, "standby");
        let of_primary = format!("host={} port={PORT} user={ROLE}", primary.sockets.display());
        standby.program("pg_basebackup").args(["-R", "--checkpoint=fast", "--no-sync", "-d", &of_primary]).run(place);
        standby.start();
        let nodes = Self { primary, standby, address };
        nodes.point_at(&nodes.primary);
        wait_until("the standby is attached", || {
            nodes.primary.session("postgres").sql("SELECT count(*)::text FROM pg_stat_replication") == ["1"]
        });
        if replication == Replication::Synchronous {
            let mut session = nodes.primary.session("postgres");
            session.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'");
            session.sql("SELECT pg_reload_conf()::text");
            wait_until("the standby is synchronous", || {
                session.sql("SELECT sync_state FROM pg_stat_replication") == ["sync"]
            });
        }
        nodes
    }

    /// The database at the address.
    pub(crate) fn url(&self) -> String {
        url(&self.address, "holdfast")
    }

    /// Leads new connections to this node, as a DNS name or a proxy would.
    pub(crate) fn point_at(&self, node: &Node) {
        let new = self.address.with_extension("new");
        symlink(&node.sockets, &new).expect("a new link");
        fs::rename(&new, &self.address).expect("the link moves");
    }

    /// Waits until the standby shows everything that the primary has.
    #[track_caller]
    pub(crate) fn wait_until_caught_up(&self) {
        let there = self.primary.session("postgres").sql("SELECT pg_current_wal_lsn()::text").remove(0);
        let mut standby = self.standby.session("postgres");
        wait_until("the standby has caught up", || {
            standby.sql(&format!("SELECT (pg_last_wal_replay_lsn() >= '{there}')::text")) == ["true"]
        });
    }
}

/// One server.
pub(crate) struct Node {
    name: &'static str,
    data: PathBuf,
    pub(crate) sockets: PathBuf,
    log: PathBuf,
    postmaster: Option<Running>,
}

impl Node {
    fn new(place: &Place, name: &'static str) -> Self {
        let sockets = place.path(&format!("{name}-run"));
        let data = place.path(name);
        for dir in [&sockets, &data] {
            fs::create_dir(dir).expect("a new directory");
            if let Some((uid, gid)) = other_user() {
                chown(dir, Some(uid), Some(gid)).expect("root may");
            }
        }
        fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("it is ours");
        Self { name, data, sockets, log: place.path(&format!("{name}.log")), postmaster: None }
    }

    /// A primary that nobody follows, with an empty database for the service.
    pub(crate) fn alone(place: &Place, name: &'static str) -> Self {
        let mut node = Self::new(place, name);
        node.program("initdb").args(["-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]).run(place);
        node.start();
        node.session("postgres").sql("CREATE DATABASE holdfast");
        node
    }

    fn program(&self, name: &str) -> Program {
        let mut command = Command::new(programs().join(name));
        command.arg("-D").arg(&self.data).current_dir("/").stdin(Stdio::null());
        if let Some((uid, gid)) = other_user() {
            command.uid(uid).gid(gid);
        }
        Program(command)
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("a file for the log");
        let sockets = format!("unix_socket_directories={}", self.sockets.display());
        let name = format!("cluster_name={}", self.name);
        let port = format!("port={PORT}");
        let mut command = self.program("postgres").0;
        for setting in [&sockets, &name, &port] {
            command.args(["-c", setting]);
        }
        for setting in ["listen_addresses=", "fsync=off", "shared_buffers=32MB", "wal_sender_timeout=0", "timezone=UTC"]
        {
            command.args(["-c", setting]);
        }
        command.stdout(log.try_clone().expect("the log's file")).stderr(log);
        self.postmaster = Some(Running(command.spawn().expect("PostgreSQL starts")));
        self.wait_until_up();
    }

    /// Waits until it answers: also after it was killed in part, when it recovers by itself.
    #[track_caller]
    pub(crate) fn wait_until_up(&self) {
        wait_until(&format!("{} answers: {}", self.name, self.log.display()), || {
            Session::open(&url(&self.sockets, "postgres")).is_ok()
        });
    }

    /// Kills everything of it.
    pub(crate) fn kill(&mut self) {
        let all = self.processes();
        for pid in all {
            signal(pid, Signal::KILL);
        }
        if let Some(mut postmaster) = self.postmaster.take() {
            postmaster.code();
        }
        wait_until("all of it has ended", || self.processes().is_empty());
        // The remains of a killed server do not belong to the next one.
        let _ = fs::remove_file(self.sockets.join(format!(".s.PGSQL.{PORT}.lock")));
    }

    /// Freezes all of it: connections stay, and nothing answers.
    pub(crate) fn freeze(&self) {
        for pid in self.processes() {
            signal(pid, Signal::STOP);
        }
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        for pid in self.processes() {
            signal(pid, Signal::CONT);
        }
    }

    /// Makes a standby the primary of what it has.
    #[track_caller]
    pub(crate) fn promote(&self) {
        let mut session = self.session("postgres");
        session.sql("SELECT pg_promote(true, 60)::text");
        wait_until("it takes writes", || session.sql("SELECT pg_is_in_recovery()::text") == ["false"]);
        // A cluster of its own: nobody else has to confirm.
        session.sql("ALTER SYSTEM SET synchronous_standby_names = ''");
        session.sql("SELECT pg_reload_conf()::text");
    }

    /// A session.
    #[track_caller]
    pub(crate) fn session(&self, database: &str) -> Session {
        Session::open(&url(&self.sockets, database)).expect("PostgreSQL answers")
    }

    /// The database of the service on this node, whatever the address points at.
    pub(crate) fn url(&self) -> String {
        url(&self.sockets, "holdfast")
    }

    fn processes(&self) -> Vec<u32> {
        let entries = fs::read_dir("/proc").expect("Linux has /proc");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|dir| dir == self.data)).collect()
    }
}

/// A program that runs to its end.
struct Program(Command);

impl Program {
    fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.0.args(arguments);
        self
    }

    #[track_caller]
    fn run(self, place: &Place) {
        let ended = place.run_to_end(self.0);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

fn url(sockets: &Path, database: &str) -> String {
    format!("postgres://{ROLE}@localhost:{PORT}/{database}?host={}", sockets.display())
}

/// The place of PostgreSQL's programs: as the service is told, or as packages install them.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration but this")]
pub(crate) fn programs() -> PathBuf {
    let packaged = || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let mut dirs: Vec<_> = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect();
        dirs.sort();
        dirs.into_iter().rfind(|dir| dir.join("pg_basebackup").exists())
    };
    let given = std::env::var_os("PG_BIN_DIR").map(PathBuf::from);
    given.or_else(packaged).expect("PG_BIN_DIR names PostgreSQL's programs")
}

/// PostgreSQL refuses root: then it runs as somebody else.
fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let postgres = passwd.lines().find_map(|line| line.strip_prefix("postgres:x:"));
    let ids = postgres.and_then(|rest| {
        let mut ids = rest.split(':').map(str::parse);
        Some((ids.next()?.ok()?, ids.next()?.ok()?))
    });
    Some(ids.unwrap_or(NOBODY))
}

#[test]
fn the_address_leads_to_the_standby_once_it_is_promoted() {
    for replication in [Replication::Synchronous, Replication::Asynchronous] {
        let place = Place::new();
        let mut nodes = Nodes::start(&place, replication);
        let server = place.serve_with(&[], &[("DATABASE_URL", &nodes.url())]);
        server.go_live();
        nodes.standby.freeze();
        nodes.standby.thaw();
        server.try_reserve().expect("an answer").ok();
        server.kill();
        nodes.wait_until_caught_up();
        nodes.primary.kill();
        nodes.standby.promote();
        nodes.point_at(&nodes.standby);
        let after = place.serve_with(&[], &[("DATABASE_URL", &nodes.url())]);
        assert_eq!(after.reservations().1, 1);
    }
}
