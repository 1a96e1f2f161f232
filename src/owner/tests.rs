use super::*;
use std::os::unix::fs::{chown, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

const NOBODY: u32 = 65_534;

fn new_place(name: &str) -> PathBuf {
    let place = std::env::temp_dir().join(format!("holdfast-owner-{name}-{}", std::process::id()));
    fs::create_dir(&place).unwrap();
    place
}

#[test]
fn root_gives_nothing_away_through_a_link_that_takes_the_place_of_a_new_directory() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = new_place("race");
    let (theirs, precious) = (place.join("theirs"), place.join("precious"));
    for dir in [&theirs, &precious] {
        fs::create_dir(dir).unwrap();
    }
    chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    let (new, moved) = (theirs.join("new"), theirs.join("moved"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The owner of the directory, who may move anything in it.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if fs::rename(&new, &moved).is_ok() {
                    let _ = symlink(&precious, &new);
                }
            }
        });
        for _ in 0..2_000 {
            // The timing is random.
            let _ = make_dir_now(&new);
            let _ = fs::remove_file(&new);
            let _ = fs::remove_dir(&new);
            let _ = fs::remove_dir(&moved);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
    fs::remove_dir_all(place).unwrap();
}

#[test]
fn a_missing_directory_is_made_with_those_above_it_and_anything_else_at_its_place_is_an_error() {
    let place = new_place("dirs");
    for path in ["a/b/c", "a/x/../d/", "a/b"] {
        let dir = place.join(path);
        let is_new = !dir.exists();
        assert_eq!(make_dir_now(&dir).unwrap().is_some(), is_new, "{path}");
        assert!(dir.is_dir(), "{path}");
        assert!(make_dir_now(&dir).unwrap().is_none(), "{path}");
    }
    fs::write(place.join("file"), "").unwrap();
    symlink(place.join("nowhere"), place.join("link")).unwrap();
    for path in ["file", "file/below", "link"] {
        make_dir_now(&place.join(path)).unwrap_err();
    }
    assert!(!place.join("nowhere").exists());
    fs::remove_dir_all(place).unwrap();
}

#[tokio::test]
async fn a_file_is_made_once_and_replaced_as_often_as_one_likes() {
    let place = new_place("files");
    let path = place.join("file");
    assert!(create(&path, "one".to_owned()).await.unwrap());
    assert!(!create(&path, "two".to_owned()).await.unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    replace(&path, "three".to_owned()).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "three");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    replace(&place.join("nowhere/file"), String::new()).await.unwrap_err();
    fs::remove_dir_all(place).unwrap();
}

#[tokio::test]
async fn only_an_old_file_of_our_own_making_is_abandoned() {
    let place = new_place("abandoned");
    let (young, old) = (place.join(".file.0123456789abcdef.new"), place.join(".file.fedcba9876543210.new"));
    let others = ["notes.new", ".file.new", ".0123456789abcdef.new", ".file.0123456789ABCDEF.new", ".file.1.new"];
    let others = others.map(|name| place.join(name));
    for path in others.iter().chain([&young, &old]) {
        fs::write(path, "half").unwrap();
        let before = fs::metadata(path).unwrap().modified().unwrap() - ABANDONED_AFTER * 2;
        if *path != young {
            File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
        }
    }
    remove_abandoned(&place).await;
    assert_eq!((young.exists(), old.exists()), (true, false));
    assert!(others.iter().all(|path| path.exists()));
    fs::remove_dir_all(place).unwrap();
}

#[tokio::test]
async fn root_neither_writes_nor_removes_through_a_directory_that_another_user_has_linked() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = new_place("linked");
    let (theirs, precious) = (place.join("theirs"), place.join("precious"));
    for dir in [&theirs, &precious] {
        fs::create_dir(dir).unwrap();
    }
    let old = precious.join(".file.fedcba9876543210.new");
    fs::write(&old, "precious").unwrap();
    let before = fs::metadata(&old).unwrap().modified().unwrap() - ABANDONED_AFTER * 2;
    File::options().write(true).open(&old).unwrap().set_modified(before).unwrap();
    // A link in root's own directory belongs to root.
    symlink(&precious, place.join("marks")).unwrap();
    replace(&place.join("marks/file"), "one".to_owned()).await.unwrap();
    fs::remove_file(precious.join("file")).unwrap();
    chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    for name in ["marks", "marks/"] {
        let linked = theirs.join(name);
        if name == "marks" {
            symlink(&precious, &linked).unwrap();
        }
        remove_abandoned(&linked).await;
        make_dir_now(&linked.join("new")).unwrap_err();
        for refused in [
            replace(&linked.join("file"), "two".to_owned()).await.unwrap_err(),
            create(&linked.join("file"), "two".to_owned()).await.unwrap_err(),
        ] {
            assert!(refused.to_string().contains("is a link"), "{refused}");
        }
    }
    assert_eq!(fs::read_dir(&precious).unwrap().count(), 1, "the old file alone");
    fs::remove_file(theirs.join("marks")).unwrap();
    fs::create_dir(theirs.join("marks")).unwrap();
    replace(&theirs.join("marks/file"), "two".to_owned()).await.unwrap();
    fs::remove_dir_all(place).unwrap();
}
