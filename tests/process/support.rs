//! A directory, the programs that run on it, and a plain HTTP client.

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything is waited for before the test gives up: far longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The files that a program may open.
const FILES: u64 = 20_000;
/// The prefix of every governance route.
const BASE: &str = "/api/governance";

/// Waits for a condition.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "this waits for processes, in real time")]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(LOOK);
    }
}

/// A port that nothing listens on. Below the range that outgoing connections are given, so that none of them takes it.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + u16::try_from(std::process::id() % 300).expect("below 300") * 60;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A `POST` below the base path, as it is sent: its head up to the empty line, and its body.
pub(crate) fn post(path: &str, body: &Value) -> (String, String) {
    let body = body.to_string();
    let head = format!(
        "POST {BASE}{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    (head, body)
}

/// Sends a signal to a process that this test started.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // One that has just ended is what the caller wanted or will notice.
    let _ = rustix::process::kill_process(pid.expect("a process id"), signal);
}

/// A directory of its own for a test, with whatever runs on it. Gone with the test.
pub(crate) struct Place {
    root: PathBuf,
    files: AtomicU32,
}

/// Raises the limit of open files, which the programs of a test inherit: an ordinary user's is often 1,024, and some tests
/// have more connections.
fn raise_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum.map_or(FILES, |maximum| maximum.min(FILES));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum });
}

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        raise_file_limit();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("holdfast-process-{}-{number}", std::process::id()));
        fs::create_dir(&root).expect("a new directory below the temporary one");
        Self { root, files: AtomicU32::new(0) }
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The value of `DATA_DIR`.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A database of the private PostgreSQL, as a URL for another program.
    pub(crate) fn url(&self, database: &str) -> String {
        let socket_dir = self.data().join("run");
        format!("postgres://holdfast@localhost/{database}?host={}", socket_dir.display())
    }

    /// The program with nothing in its environment but this directory.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.args(arguments).env_clear().stdin(Stdio::null());
        #[expect(clippy::disallowed_methods, reason = "where programs are is all that the child inherits")]
        for name in ["PATH", "HOME", "PG_BIN_DIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // A stop is announced to nobody here, and no start waits for a database; the tests of that say otherwise.
        command.env("DATA_DIR", self.data()).env("DRAIN_SECONDS", "0").env("DATABASE_WAIT_SECONDS", "0");
        command
    }

    fn file(&self) -> PathBuf {
        self.path(&format!("output-{}", self.files.fetch_add(1, Ordering::Relaxed)))
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str], env: &[(&str, &str)]) -> Ended {
        let mut command = self.command(arguments);
        command.envs(env.iter().copied());
        self.run_to_end(command)
    }

    #[track_caller]
    pub(crate) fn run_to_end(&self, mut command: Command) -> Ended {
        let (out, err) = (self.file(), self.file());
        let mut running = Running(
            command
                .stdout(File::create(&out).expect("a file for the output"))
                .stderr(File::create(&err).expect("a file for the errors"))
                .spawn()
                .expect("the program starts"),
        );
        let code = running.code();
        Ended { code, out: fs::read_to_string(out).expect("UTF-8"), err: fs::read_to_string(err).expect("UTF-8") }
    }

    /// Starts a server and waits until it is ready.
    #[track_caller]
    pub(crate) fn serve(&self) -> Server {
        self.serve_with(&[], &[])
    }

    #[track_caller]
    pub(crate) fn serve_with(&self, arguments: &[&str], env: &[(&str, &str)]) -> Server {
        let server = self.launch(arguments, env);
        server.wait_until_ready();
        server
    }

    /// Starts a server.
    pub(crate) fn launch(&self, arguments: &[&str], env: &[(&str, &str)]) -> Server {
        let port = free_port();
        let mut command = self.command(arguments);
        command.env("BIND_ADDR", format!("127.0.0.1:{port}")).envs(env.iter().copied());
        self.launch_as(command, port)
    }

    pub(crate) fn launch_as(&self, mut command: Command, port: u16) -> Server {
        let log = self.file();
        let running = Running(
            command
                .stdout(Stdio::null())
                .stderr(File::create(&log).expect("a file for the log"))
                .spawn()
                .expect("the program starts"),
        );
        Server { running, port, log }
    }

    /// Processes that work on this directory: their command line names it, or they stand in it, as PostgreSQL's do.
    fn processes(&self) -> Vec<(u32, String)> {
        let names = |bytes: &[u8]| {
            let root = self.root.as_os_str().as_encoded_bytes();
            bytes.windows(root.len() + 1).any(|window| window.starts_with(root) && window[root.len()] == b'/')
        };
        let entries = fs::read_dir("/proc").expect("Linux has /proc");
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| *pid != std::process::id())
            .filter_map(|pid| {
                // Gone in the meantime, or a stranger's.
                let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let stands_in = fs::read_link(format!("/proc/{pid}/cwd"))
                    .is_ok_and(|dir| names(dir.as_os_str().as_encoded_bytes()));
                (stands_in || names(&line)).then(|| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
            })
            .collect()
    }

    /// The process that ends PostgreSQL when the server cannot.
    pub(crate) fn watcher(&self) -> Option<u32> {
        let found = self.processes();
        found.iter().find(|(_, line)| line.contains("holdfast-watcher")).map(|(pid, _)| *pid)
    }

    /// PostgreSQL's processes, the postmaster first.
    pub(crate) fn postgres(&self) -> Vec<u32> {
        let postmaster = self.postmaster();
        let mut pids: Vec<u32> = self
            .processes()
            .into_iter()
            .filter(|(_, line)| !line.contains("holdfast-watcher"))
            .map(|(pid, _)| pid)
            .collect();
        pids.sort_by_key(|pid| (Some(*pid) != postmaster, *pid));
        pids
    }

    /// Asserts that nothing of this directory runs: neither PostgreSQL nor its watcher.
    #[track_caller]
    pub(crate) fn check_nothing_runs(&self) {
        let left = self.processes();
        assert!(left.is_empty(), "left running: {left:?}");
    }

    /// The postmaster, as its pid file says.
    pub(crate) fn postmaster(&self) -> Option<u32> {
        let file = fs::read_to_string(self.data().join("pg/postmaster.pid")).ok()?;
        file.lines().next()?.parse().ok()
    }

    /// Runs SQL in a database of the private PostgreSQL and gives the first column of what it answers.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> Vec<String> {
        self.session(database).sql(sql)
    }

    /// A session with a database of the private PostgreSQL, for as long as it is kept.
    pub(crate) fn session(&self, database: &str) -> Session {
        Session::open(&self.url(database)).expect("PostgreSQL answers")
    }
}

/// A session with PostgreSQL.
pub(crate) struct Session {
    runtime: tokio::runtime::Runtime,
    conn: PgConnection,
}

impl Session {
    /// A session with the database at a URL.
    pub(crate) fn open(url: &str) -> sqlx::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let conn = runtime.block_on(PgConnection::connect(url))?;
        Ok(Self { runtime, conn })
    }

    /// Runs SQL and gives the first column of what it answers.
    #[track_caller]
    pub(crate) fn sql(&mut self, sql: &str) -> Vec<String> {
        let query = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut self.conn);
        let rows = self.runtime.block_on(query).expect("the SQL is right");
        rows.iter().map(|row| row.get(0)).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        wait_until("everything of the test has ended", || {
            let left = self.processes();
            for (pid, _) in &left {
                signal(*pid, Signal::KILL);
            }
            left.is_empty()
        });
        // The sockets of another user's directory, and nothing that anybody needs.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A process of ours; killed with the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Waits for the end, and gives the exit code.
    #[track_caller]
    pub(crate) fn code(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.0.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it ended").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// The sentences on standard error, without the log lines.
    pub(crate) fn sentences(&self) -> Vec<&str> {
        let lines = self.err.lines();
        lines.filter(|line| !line.starts_with('{') && !line.is_empty()).collect()
    }

    /// Expects exit code 1 and one sentence, and gives that.
    #[track_caller]
    pub(crate) fn refusal(&self) -> &str {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        match self.sentences()[..] {
            [sentence] => sentence,
            _ => panic!("not one sentence: {self:?}"),
        }
    }
}

/// A server of ours; killed with the test.
pub(crate) struct Server {
    running: Running,
    pub(crate) port: u16,
    log: PathBuf,
}

impl Server {
    pub(crate) fn of(running: Running, port: u16, log: PathBuf) -> Self {
        Self { running, port, log }
    }

    /// Closes our ends of its standard streams.
    pub(crate) fn close_pipes(&mut self) {
        drop((self.running.0.stdin.take(), self.running.0.stdout.take(), self.running.0.stderr.take()));
    }

    /// Asks it to end by a signal, and gives the exit code.
    #[track_caller]
    pub(crate) fn exit_code_after(mut self, by: Signal) -> Option<i32> {
        signal(self.pid(), by);
        self.running.code()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.0.id()
    }

    pub(crate) fn log(&self) -> String {
        // One whose streams are pipes or closed has no file.
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        wait_until(&format!("ready: {}", self.log.display()), || {
            assert!(Path::new(&format!("/proc/{}/cwd", self.pid())).exists(), "the server has ended: {}", self.log());
            self.try_get("/readyz").is_ok_and(|reply| reply.status == 200)
        });
    }

    /// Kills it, with nothing left to it to do.
    pub(crate) fn kill(mut self) {
        signal(self.pid(), Signal::KILL);
        self.running.code();
    }

    /// Asks it to end by a signal, and waits for that. Gives the log.
    #[track_caller]
    pub(crate) fn stop(mut self, by: Signal) -> String {
        signal(self.pid(), by);
        let code = self.running.code();
        let log = self.log();
        assert_eq!(code, Some(0), "{log}");
        log
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Ended {
        Ended { code: self.running.code(), out: String::new(), err: self.log() }
    }

    /// A connection.
    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port)))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Sends a request as it is and reads the answer.
    pub(crate) fn exchange(&self, request: &[u8]) -> io::Result<Reply> {
        let mut stream = self.connect()?;
        stream.write_all(request)?;
        Reply::read(&mut stream)
    }

    pub(crate) fn try_get(&self, path: &str) -> io::Result<Reply> {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
    }

    pub(crate) fn try_post(&self, path: &str, body: &Value) -> io::Result<Reply> {
        let (head, body) = post(path, body);
        self.exchange(format!("{head}\r\n{body}").as_bytes())
    }

    /// `GET` of an absolute path.
    #[track_caller]
    pub(crate) fn get_root(&self, path: &str) -> Reply {
        self.try_get(path).expect("the server answers")
    }

    /// `GET` below the base path.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.get_root(&format!("{BASE}{path}"))
    }

    /// `POST` below the base path.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.try_post(path, body).expect("the server answers")
    }

    /// Switches production on, with room for many reserves of 1.
    #[track_caller]
    pub(crate) fn go_live(&self) {
        self.post("/go-live/enable", &json!({"actor": "test"})).ok();
        for engine in ["GLOBAL", "WHOLESALE"] {
            let caps = json!({"engine": engine, "max_daily_loss": 1_000_000, "max_daily_exposure": 1_000_000,
                              "max_open_risk": 1_000_000, "actor": "test", "reason": "room for the test"});
            self.post("/risk/policies/upsert", &caps).ok();
        }
    }

    /// Reserves 1.
    pub(crate) fn try_reserve(&self) -> io::Result<Reply> {
        self.try_post("/risk/check-and-reserve", &json!({"engine": "WHOLESALE", "amount": 1, "actor": "test"}))
    }

    /// The ids of all reservations, and what the ledger says is open.
    #[track_caller]
    pub(crate) fn reservations(&self) -> (Vec<String>, u64) {
        let mut ids = Vec::new();
        let mut next = "/risk/reservations?limit=1000".to_owned();
        loop {
            let page = self.get(&next).ok();
            let items = page["items"].as_array().expect("a page has items");
            ids.extend(items.iter().map(|item| {
                assert_eq!(item["status"], "OPEN", "{item}");
                let id = item["reservation_id"].as_str();
                id.unwrap_or_else(|| panic!("no id: {item}")).to_owned()
            }));
            match page["next_cursor"].as_str() {
                Some(cursor) => next = format!("/risk/reservations?limit=1000&cursor={cursor}"),
                None => break,
            }
        }
        let ledger = self.get("/risk/ledger/today").ok();
        let rows = ledger.as_array().expect("an array");
        let global = rows.iter().find(|row| row["engine"] == "GLOBAL");
        let open = global.expect("GLOBAL has a row")["open_risk_reserved"].as_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "reserves of 1, few of them")]
        let open = open.expect("a number") as u64;
        (ids, open)
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
    /// The body as JSON; null where it is none.
    pub(crate) json: Value,
}

impl Reply {
    /// Reads an answer up to the end of the connection. One that is cut short is an error.
    pub(crate) fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let text = String::from_utf8(bytes).map_err(io::Error::other)?;
        let whole = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n");
        let (head, body) = whole
            .unwrap_or(&text)
            .split_once("\r\n\r\n")
            .ok_or_else(|| io::Error::other(format!("cut short: {text:?}")))?;
        let reply = Self {
            status: head
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok())
                .ok_or_else(|| io::Error::other(format!("no status: {head}")))?,
            head: head.to_ascii_lowercase(),
            text: body.to_owned(),
            json: serde_json::from_str(body).unwrap_or(Value::Null),
        };
        let length = reply.header("content-length");
        if length.is_some_and(|length| length != body.len().to_string()) {
            return Err(io::Error::other(format!("cut short: {text:?}")));
        }
        Ok(reply)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Expects 200 and gives the body.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json
    }

    /// Expects a 503 that says when to come again, and gives the stable code.
    #[track_caller]
    pub(crate) fn unavailable(&self) -> &str {
        assert_eq!(self.status, 503, "{}", self.text);
        assert!(self.header("retry-after").is_some(), "{}", self.head);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text);
        self.json["error"].as_str().expect("a stable code")
    }
}
