//! The user that runs PostgreSQL. PostgreSQL refuses root, so a Holdfast of root runs initdb and postgres as another
//! user; any other Holdfast runs them as itself.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use rustix::io::Errno;

use super::error::EmbeddedError;
use crate::process_status;

pub(super) const SHELL: &str = "/bin/sh";

/// The id of `nobody` on Linux, used if the system does not have that name either.
const NOBODY: u32 = 65534;

/// The user of a root's PostgreSQL. `CommandExt::uid` drops supplementary groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunAs {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) name: String,
}

impl RunAs {
    /// `None` unless this process is root. Otherwise the first of these: the owner of the cluster (no other user is
    /// possible), the owner of the data directory, `postgres`, `nobody`.
    pub(super) fn choose(data_dir: &Path, cluster: &Path) -> Result<Option<Self>, EmbeddedError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        // An unreadable or missing file only loses names; the numbers still work.
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        if let Some(uid) = owner(cluster)? {
            if uid == 0 {
                return Err(EmbeddedError::ClusterOfRoot { cluster: cluster.to_owned() });
            }
            return Ok(Some(Self::of_uid(&passwd, uid)));
        }
        Ok(Some(match owner(data_dir)? {
            Some(uid) if uid != 0 => Self::of_uid(&passwd, uid),
            _ => Self::of_name(&passwd, "postgres")
                .or_else(|| Self::of_name(&passwd, "nobody"))
                .unwrap_or_else(|| Self::of_uid(&passwd, NOBODY)),
        }))
    }

    /// Checks that root may run PostgreSQL as this user: in a container or a user namespace it may lack the rights.
    pub(super) fn check_becoming(&self) -> Result<(), EmbeddedError> {
        let cannot = |reason: String| Err(EmbeddedError::CannotBecome { user: self.name.clone(), reason });
        let missing = missing_capabilities(process_status::mask("CapEff"));
        if !missing.is_empty() {
            return cannot(format!("of the capabilities, {} are missing (cap_add)", missing.join(", ")));
        }
        // A namespace may have neither this user nor groups.
        let mut shell = Command::new(SHELL);
        shell.args(["-c", ":"]).env_clear().current_dir("/").uid(self.uid).gid(self.gid).stdin(Stdio::null());
        match shell.status() {
            Err(error)
                if [Errno::PERM, Errno::INVAL]
                    .map(Errno::raw_os_error)
                    .contains(&error.raw_os_error().unwrap_or(0)) =>
            {
                cannot(format!("this user namespace does not allow it to become that user ({error})"))
            }
            // Any other failure is reported when it matters.
            _ => Ok(()),
        }
    }

    /// The first directory on the path, including its end, that this user cannot enter.
    pub(super) fn check_way_to(&self, path: &Path) -> Result<(), EmbeddedError> {
        let mut way: Vec<&Path> = path.ancestors().collect();
        way.reverse();
        for dir in way {
            let meta = fs::metadata(dir).map_err(EmbeddedError::at(dir))?;
            if !self.may_enter(meta.uid(), meta.gid(), meta.permissions().mode()) {
                return Err(EmbeddedError::NotTraversable { user: self.name.clone(), dir: dir.to_owned() });
            }
        }
        Ok(())
    }

    /// The kernel's rule: exactly one of the three classes applies.
    fn may_enter(&self, uid: u32, gid: u32, mode: u32) -> bool {
        let execute = if uid == self.uid {
            0o100
        } else if gid == self.gid {
            0o010
        } else {
            0o001
        };
        mode & execute != 0
    }

    fn of_name(passwd: &str, name: &str) -> Option<Self> {
        passwd.lines().filter_map(Self::parse).find(|user| user.name == name && user.uid != 0)
    }

    fn of_uid(passwd: &str, uid: u32) -> Self {
        passwd.lines().filter_map(Self::parse).find(|user| user.uid == uid).unwrap_or_else(|| Self {
            uid,
            // Never the group of the directory, which may be root's.
            gid: NOBODY,
            name: format!("with id {uid}"),
        })
    }

    /// One line of `/etc/passwd`: `name:x:uid:gid:...`. macOS writes `nobody` as -2.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let _password = fields.next()?;
        Some(Self { name, uid: parse_id(fields.next()?)?, gid: parse_id(fields.next()?)? })
    }
}

/// The capabilities that root needs to run PostgreSQL as another user, and their bits: to give it the directory, to
/// read that, to stop it, and to become it.
const CAPABILITIES: [(&str, u32); 5] = [("CHOWN", 0), ("DAC_OVERRIDE", 1), ("KILL", 5), ("SETGID", 6), ("SETUID", 7)];

/// The missing capabilities, given the mask of the present ones; empty if the mask is not known.
fn missing_capabilities(effective: Option<u64>) -> Vec<&'static str> {
    let Some(effective) = effective else { return Vec::new() };
    CAPABILITIES.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect()
}

fn parse_id(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| text.parse::<i32>().ok().map(i32::cast_unsigned))
}

/// The owner of `path`; `None` if it does not exist.
fn owner(path: &Path) -> Result<Option<u32>, EmbeddedError> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.uid())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EmbeddedError::at(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:PostgreSQL:/var:/bin/sh\nnobody:*:-2:-2::/:/";

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let postgres = RunAs::of_name(PASSWD, "postgres").expect("listed");
        assert_eq!((postgres.uid, postgres.gid), (101, 104));
        assert_eq!(RunAs::of_uid(PASSWD, 101), postgres);
        assert_eq!(RunAs::of_name(PASSWD, "nobody").expect("listed").uid, u32::MAX - 1);
        assert_eq!(RunAs::of_name(PASSWD, "root"), None);
        assert_eq!(RunAs::of_uid(PASSWD, 77).gid, NOBODY);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing_capabilities(Some(0x21)), ["DAC_OVERRIDE", "SETGID", "SETUID"]);
        assert_eq!(missing_capabilities(Some(0x1ff_ffff_ffff)), [""; 0]);
        assert_eq!(missing_capabilities(None), [""; 0]);
    }

    #[test]
    fn entering_a_directory_needs_the_execute_bit_of_the_class_that_applies() {
        let user = RunAs::of_uid(PASSWD, 101);
        assert!(user.may_enter(101, 0, 0o700));
        assert!(!user.may_enter(0, 0, 0o700));
        assert!(user.may_enter(0, 0, 0o711));
        assert!(user.may_enter(0, 104, 0o710));
        assert!(!user.may_enter(0, 104, 0o701));
    }
}
