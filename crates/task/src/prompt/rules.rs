//! The table of prompts.
//!
//! A new rule needs a real tool's prompt that no rule matches yet. It names the tool as its source, an example, and counterexamples: the
//! most similar lines that are no prompts. Tests run all examples and the build logs in `src/prompt/build-logs` against the whole table.

use super::{
    line::Line,
    matches::{interpreter, key, pager, question, secret, selection, shell, user_name, yes_or_no},
};

/// One kind of prompt.
pub(super) struct Rule {
    /// Its name, for tests.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests name the rule that fails"))]
    pub(super) name: &'static str,
    /// The tools, with their versions, or the manuals that print it.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests ask for it"))]
    pub(super) source: &'static str,
    /// Whether a line is a prompt of this kind.
    pub(super) matches: fn(&Line<'_>) -> bool,
    /// Prompts of this kind.
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests"))]
    pub(super) examples: &'static [&'static str],
    /// Lines that no rule may match.
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests"))]
    pub(super) counterexamples: &'static [&'static str],
}

/// All rules.
pub(super) const RULES: [Rule; 11] = [
    Rule {
        name: "choice of yes or no",
        source: "apt 2.6, dnf(8), pip 23 uninstall, npx of npm 11, OpenSSH 9.2, dpkg 1.21, git add -p 2.39, docker prune 28",
        matches: yes_or_no,
        examples: &[
            "Do you want to continue? [Y/n] ",
            "Is this ok [y/N]: ",
            "Overwrite? (y/N) ",
            "Proceed (Y/n)? ",
            "Ok to proceed? (y) ",
            "Is this OK? (yes) ",
            "Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
            "*** motd (Y/I/N/O/D/Z) [default=N] ? ",
            "(1/1) Stage this hunk [y,n,q,a,d,e,?]? ",
            "Are you sure you want to continue? [y/N] ",
            "host key (yes/no)",
        ],
        counterexamples: &[
            "ok (3/4)",
            "copied [a/b]",
            "any(y, n)",
            "tests/y (no output)",
            "Ran 3 tests (no failures)",
            "[n]",
        ],
    },
    Rule {
        name: "secret",
        source: "sudo 1.9, su, passwd, ssh and ssh-keygen of OpenSSH 9.2, git 2.39, openssl 3.0, gpg 2.2, psql 15, ansible-vault",
        matches: secret,
        examples: &[
            "Password: ",
            "password for bob: ",
            "[sudo] password for x: ",
            "Password for 'https://bob@host.example': ",
            "bob@host.example's password: ",
            "Enter passphrase for key '/home/bob/.ssh/id_ed25519': ",
            "Enter PEM pass phrase:",
            "(current) UNIX password: ",
            "Retype new password: ",
            "Password (again): ",
            "Verification code: ",
            "Enter PIN for 'token': ",
        ],
        counterexamples: &[
            "passwords: 3 of 7",
            "pin:",
            "spin: ",
            "checking password hashes",
            "error: password for bob: too short",
        ],
    },
    Rule {
        name: "name of a user",
        source: "git 2.39 credentials over HTTP, login(1), docker login 28, npm login 11",
        matches: user_name,
        examples: &[
            "Username for 'https://host.example': ",
            "Username: ",
            "host login: ",
            "login: ",
            "User name: ",
            "Username (bob): ",
        ],
        counterexamples: &["Last login: yesterday", "plugin: ", "unlogin:", "usernames: "],
    },
    Rule {
        name: "demand to enter something",
        source: "terraform 1.11 apply, ssh-keygen 9.2, openssl 3.0 req, certbot, read -p of many scripts",
        matches: |line| line.text.ends_with(':') && line.has_word("enter"),
        examples: &[
            "Enter your name: ",
            "Enter a value: ",
            "Enter file in which to save the key (/root/.ssh/id_rsa): ",
            "Please enter a number:",
        ],
        counterexamples: &["center: ", "entering: /src", "enter the loop", "Entering directory 'x':"],
    },
    Rule {
        name: "choice from a list",
        source: "select of bash(1), tzdata and debconf(7) in readline mode, update-alternatives 1.21, cookiecutter 2",
        matches: selection,
        examples: &[
            "Choose [1-3]: ",
            "Select an option (1-4): ",
            "[1-3]:",
            "Choose from 1, 2, 3 [1]: ",
            "#? ",
            "Press <enter> to keep the current choice[*], or type selection number: ",
            "Your choice: ",
            "Geographic area: ",
        ],
        counterexamples: &[
            "src/main.rs[1-3]: unused",
            "lines 10-20",
            "took [1-3] s",
            "[1/3]:",
            "warning[E0308]:",
            "foo.c[3]:",
        ],
    },
    Rule {
        name: "wait for a key",
        source: "Homebrew installer, add-apt-repository of software-properties, pause of scripts, perldoc",
        matches: key,
        examples: &[
            "press ENTER to continue...",
            "Press any key to continue . . .",
            "Press [ENTER] to continue or Ctrl-c to cancel.",
            "Press RETURN/ENTER to continue or any other key to abort:",
            "[Press ENTER to continue] ",
            "Hit any key",
        ],
        counterexamples: &[
            "compress to continue the",
            "press release to contain",
            "decompress data to exit.c",
            "express to go on",
        ],
    },
    Rule {
        name: "pager",
        source: "less 590, more of util-linux 2.38, man-db 2.11",
        matches: pager,
        examples: &[
            "(END)",
            "\x1b[7m(END)\x1b[27m\x1b[K",
            ":",
            "--More--",
            "--More--(12%)",
            "-- More --",
            "lines 1-23/23 (END)",
            "Manual page ls(1) line 1 (press h for help or q to quit)",
        ],
        counterexamples: &["BEGIN (END) ok", "more --help", "lines 1-23", "::", "(end of file)"],
    },
    Rule {
        name: "question",
        source: "rm -i, cp -i and mv -i of coreutils 9.1, unzip 6.0, fsck 1.47, scripts",
        matches: question,
        examples: &[
            "Are you sure?",
            "Continue? ",
            "Proceed?",
            "Overwrite? ",
            "rm: remove regular file 'a'? ",
            "cp: overwrite 'b'? ",
            "replace a.txt? [y]es, [n]o, [A]ll, [N]one, [r]ename: ",
            "Do you want to create the file? ",
            "Clear<y>? ",
        ],
        counterexamples: &["help: did you mean `foo`?", "continue", "what?", "fn proceed()", "rm: cannot remove 'a'"],
    },
    Rule {
        name: "shell",
        source: "bash 5.2, dash, busybox ash 1.36, PS1 of Debian, Fedora and Alpine, network devices",
        matches: shell,
        examples: &[
            "$ ",
            "# ",
            "> ",
            "bob@host:~$ ",
            "bob@host:/srv/app$",
            "root@box:/# ",
            "[bob@host ~]$ ",
            "(venv) bob@host:~$ ",
            "bash-5.2$ ",
            "sh-5.2#",
            "/ # ",
            "~ $ ",
            "/workspace # ",
            "router# ",
            "switch(config)# ",
            "PS C:\\Users\\bob> ",
        ],
        counterexamples: &[
            "#",
            ">",
            "########",
            "## Part #",
            "costs 5 $",
            "#####     40.0%#",
            "a -> b #",
            "issue#",
            "echo $",
            "-> #",
            "#1 $",
            "C#",
        ],
    },
    Rule {
        name: "interpreter",
        source: "python 3.11, ipython 8, node 20, psql 15, mysql 8, sqlite3 3.40, irb 3.1, gdb 13, redis-cli 7, ftp",
        matches: interpreter,
        examples: &[
            ">>> ",
            "In [1]: ",
            "(Pdb) ",
            "(gdb) ",
            "ipdb> ",
            "mysql> ",
            "sqlite> ",
            "user> ",
            "postgres=# ",
            "postgres=> ",
            "postgres-# ",
            "irb(main):001:0> ",
            "127.0.0.1:6379> ",
            "php > ",
        ],
        counterexamples: &[
            "</project>",
            "  int>",
            "Vec<String>",
            "-->",
            "=>",
            "<a href=\"x\">",
            "[====>",
            " 50% [=====>   ",
            "a >> b",
            "Vec<u8> ",
            "=> ",
            "-> ",
            "<none> ",
            "sha256:<none>",
            "[=====> ",
            "/> ",
        ],
    },
    Rule {
        name: "npm init",
        source: "npm 11 init",
        matches: |line| {
            line.spaced
                && line.begins(&[
                    "package name:",
                    "version: (",
                    "entry point:",
                    "git repository:",
                    "license: (",
                    "test command:",
                ])
                && line.text.ends_with([':', ')'])
        },
        examples: &[
            "package name: (demo) ",
            "version: (1.0.0) ",
            "entry point: (index.js) ",
            "license: (ISC) ",
            "test command: ",
        ],
        counterexamples: &["version: (1.0.0)", "version: 3", "license: (MIT) and others", "package name: demo"],
    },
];
