//! Writing to files that must not be writable: the machine's, and another sandbox's.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use errand_runtime::{Runtime as _, RuntimeError};

use super::pair::{Pair, USERS, pair, pair_as};

/// The writable paths inside, apart from the two persistent directories and the process's own files in `/proc`.
const WRITABLE: &str = "/dev/full\n/dev/null\n/dev/random\n/dev/shm\n/dev/tty\n/dev/urandom\n/dev/zero\n";

#[tokio::test]
async fn writes_outside_own_directories_fail() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let found = pair
            .sh("find / \\( -path /proc -o -path /tmp -o -path /workspace -o -path /dev/pts \\) -prune -o ! -type l -writable \
                 -print 2>/dev/null | sort")
            .await;
        assert_eq!(found, WRITABLE, "as {user:?}");
        let tried = "for f in / /usr /usr/bin /usr/lib /etc /bin /sbin /lib /root /home /run /run/errand /var /dev /proc /sys; do \
                     (echo x >$f/errand-escape) 2>/dev/null && echo $f; done; \
                     for f in /etc/passwd /etc/hosts /usr/bin/env /bin/sh /run/errand/init; do \
                     (echo x >>$f) 2>/dev/null && echo $f; (mv $f $f.x) 2>/dev/null && echo $f; \
                     (chmod 777 $f) 2>/dev/null && echo $f; (touch $f) 2>/dev/null && echo $f; done; echo tried";
        assert_eq!(pair.sh(tried).await, "tried\n", "as {user:?}");
        assert!(!PathBuf::from("/usr/errand-escape").exists());
        pair.is_unharmed().await;
    }
}

/// Python that tries every way to write a program: by its path, and through every process that runs it.
const OVERWRITE: &str = "
import os
for path in ['/run/errand/init', '/proc/1/exe', '/proc/self/exe', '/bin/sh']:
    for flags in [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND]:
        try:
            os.write(os.open(path, flags), b'x')
            print('written', path)
        except OSError:
            pass
descriptor = os.open('/run/errand/init', os.O_RDONLY)
for flags in [os.O_WRONLY, os.O_RDWR]:
    try:
        os.open(f'/proc/self/fd/{descriptor}', flags)
        print('written by descriptor')
    except OSError:
        pass
print('tried')
";

#[tokio::test]
async fn shared_init_program_cannot_be_changed() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let program = program(&pair);
        let before = fs::read(&program).unwrap();
        assert_eq!(pair.python(OVERWRITE).await, "tried\n", "as {user:?}");
        assert!(fs::read(&program).unwrap() == before, "{}", program.display());
        pair.is_unharmed().await;
    }
}

/// The program that every sandbox's init runs, by its path on the machine.
fn program(pair: &Pair) -> PathBuf {
    let directory = pair.inside.machine.data_dir().join("sandboxes/.bin");
    fs::read_dir(directory).unwrap().flatten().next().unwrap().path()
}

#[tokio::test]
async fn links_never_lead_outside() {
    let Some(mut pair) = pair().await else { return };
    let (directory, file) = (pair.secret_file().parent().unwrap().display().to_string(), pair.secret_file());
    let script = format!(
        "cd /workspace; ln -s / root; ln -s {directory} there; ln -s {} file; ln -s /proc/self/root/.. up; ln -s ../../../../.. dots
         for f in root{0} there/secret file up{0} dots{0} /proc/self/cwd/../..{0} /proc/1/root{0}; do
             (echo x >$f) 2>/dev/null && echo written $f; cat $f 2>/dev/null; done
         ln /usr/bin/env hard 2>/dev/null && echo linked; ls -id /.. | cut -d/ -f1 | tr -d ' ' >a; ls -id / | cut -d/ -f1 | tr -d ' ' >b
         cmp a b && echo top",
        file.display()
    );
    assert_eq!(pair.sh(&script).await, "top\n");
    // Files that the server writes for the sandbox are written inside it too.
    for path in ["/workspace/there/secret", "/workspace/file/x", "/workspace/root/usr/x", "/workspace/dots/etc/x"] {
        let written = pair.inside.runtime.put_file(pair.inside.id(), path, b"x", 0o644).await;
        assert!(matches!(written, Err(RuntimeError::NotWritten { .. })), "{path}: {written:?}");
    }
    pair.is_unharmed().await;
}

#[tokio::test]
async fn files_of_another_sandbox_are_unreachable() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let script = "for p in /proc/[0-9]*; do for way in root cwd; do cat $p/$way/workspace/kept $p/$way/../*/files/workspace/kept \
                      $p/$way/../../*/files/workspace/kept 2>/dev/null; (echo x >$p/$way/workspace/kept) 2>/dev/null; done; done; \
                      find / -name kept -not -path '/proc/*' 2>/dev/null; rm -f /workspace/kept";
        // The sandbox's own file, which has the same path, is the only one.
        assert_eq!(pair.sh(script).await.replace("x\n", ""), "/workspace/kept\n", "as {user:?}");
        let data = pair.inside.machine.data_dir().display().to_string();
        assert_eq!(pair.sh(&format!("ls -d {data} 2>/dev/null; cd {data} 2>/dev/null && ls")).await, "");
        pair.is_unharmed().await;
    }
}

#[tokio::test]
async fn removal_of_a_sandbox_spares_link_targets() {
    let Some(mut pair) = pair().await else { return };
    let there = pair.secret_file();
    let directory = there.parent().unwrap().display();
    // In every place that the removal passes, with permissions that make the removal try again.
    let script = format!(
        "for d in /workspace /tmp; do cd $d; mkdir -p a/b c; ln -s {directory} a/b/link; ln -s {} c/link; ln -s {directory} link; \
         chmod 0 a/b a; chmod 555 c; done; rmdir /tmp /workspace 2>/dev/null; ls -d /tmp /workspace",
        there.display()
    );
    assert_eq!(pair.sh(&script).await, "/tmp\n/workspace\n");
    let before = fs::metadata(&there).unwrap().ino();
    pair.inside.runtime.remove(pair.inside.id()).await.unwrap();
    assert!(!pair.inside.directory().exists());
    assert_eq!(fs::metadata(&there).unwrap().ino(), before);
    pair.others_are_unharmed().await;
}
