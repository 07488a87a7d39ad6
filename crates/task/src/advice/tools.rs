//! The table of tools that ask, and what keeps each from asking.

/// A tool that may wait for an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tool {
    /// Its programs. The first is its name in texts.
    pub(super) names: &'static [&'static str],
    /// Only with one of these words; empty: always.
    pub(super) subcommands: &'static [&'static str],
    /// Other processes that wait on its behalf.
    pub(super) processes: &'static [&'static str],
    /// Parts of its questions, in lower case.
    pub(super) questions: &'static [&'static str],
    /// What it asks for.
    pub(super) asks: &'static str,
    /// What usually avoids the question.
    pub(super) remedy: &'static str,
    /// Words of a command that already has the remedy.
    pub(super) flags: &'static [&'static str],
}

/// One row: programs, words that they need, what they ask for, what avoids it, words that show that it is avoided, processes that wait, questions.
macro_rules! tools {
    ($([$($name:literal),+] $(with [$($subcommand:literal),+])? asks for $asks:literal: $remedy:literal unless [$($flag:literal),*]
        $(through [$($process:literal),+])? $(saying [$($question:literal),+])?;)+) => {
        &[$(Tool {
            names: &[$($name),+],
            subcommands: &[$($($subcommand),+)?],
            processes: &[$($($process),+)?],
            questions: &[$($($question),+)?],
            asks: $asks,
            remedy: $remedy,
            flags: &[$($flag),*],
        }),+]
    };
}

/// The tools. A row with subcommands stands before the row of the same tool without them.
pub(super) const TOOLS: &[Tool] = tools! {
    ["docker", "podman", "nerdctl"] with ["login"] asks for "a user name and a password":
        "docker login --username NAME --password-stdin with the password on standard input" unless ["--password-stdin"];
    ["docker", "podman", "nerdctl"] with ["prune"] asks for "a confirmation": "--force" unless ["-f", "--force"]
        saying ["are you sure you want to continue? [y/n]"];
    ["apt-get", "apt", "aptitude", "dpkg", "dpkg-reconfigure"] asks for "a confirmation or a setting":
        "-y and the variable DEBIAN_FRONTEND=noninteractive" unless ["-y", "-qq", "-qqy", "-yq", "-yqq", "--yes", "--assume-yes"]
        through ["frontend", "whiptail", "debconf"] saying ["do you want to continue? [y/n]", "configuring "];
    ["dnf", "yum", "microdnf"] asks for "a confirmation": "-y" unless ["-y", "--assumeyes"]
        saying ["is this ok [y/n]", "is this ok [y/d/n]"];
    ["zypper"] asks for "a confirmation": "--non-interactive (before the subcommand)" unless ["-n", "--non-interactive"]
        saying ["continue? [y/n/"];
    ["apk"] asks for "a confirmation": "no --interactive" unless [];
    ["pacman", "yay", "paru"] asks for "a confirmation": "--noconfirm" unless ["--noconfirm"] saying ["proceed with installation? [y/n]"];
    ["brew"] asks for "a confirmation": "the variable NONINTERACTIVE=1" unless [];
    ["snap", "flatpak"] asks for "a confirmation": "-y" unless ["-y", "--assumeyes"];
    ["npm", "npx"] asks for "a confirmation or a setting": "--yes" unless ["-y", "--yes"] through ["node"]
        saying ["ok to proceed? (y)", "need to install the following packages", "package name: ("];
    ["yarn"] asks for "a choice or a setting": "--non-interactive, or -y for yarn init" unless ["--non-interactive", "-y", "--yes"]
        through ["node"];
    ["pnpm", "bun", "bunx"] asks for "a confirmation or a setting": "--yes, or the variable CI=true" unless ["-y", "--yes"]
        through ["node"];
    ["pip", "pip3", "pipx"] asks for "a confirmation or a password": "--no-input, and -y for pip uninstall"
        unless ["-y", "--yes", "--no-input"] through ["python3", "python"] saying ["proceed (y/n)?"];
    ["poetry", "uv"] asks for "a confirmation or a setting": "--no-interaction" unless ["-n", "--no-interaction"]
        through ["python3", "python"];
    ["conda", "mamba", "micromamba"] asks for "a confirmation": "-y" unless ["-y", "--yes"] through ["python3", "python"]
        saying ["proceed ([y]/n)?"];
    ["git"] with ["commit", "merge", "rebase", "revert", "pull", "tag"] asks for "a message in an editor, or a user name and a password":
        "--no-edit or -m MESSAGE, and the variables GIT_EDITOR=true and GIT_TERMINAL_PROMPT=0" unless ["--no-edit", "-m"]
        through ["vi", "vim", "nano", "editor"];
    ["git"] asks for "a user name and a password":
        "the variable GIT_TERMINAL_PROMPT=0, so that it fails instead, and a credential helper or a token" unless []
        saying ["username for 'http", "username for ‘http", "password for 'http", "password for ‘http"];
    ["gh"] asks for "a choice or a login": "the variables GH_TOKEN and GH_PROMPT_DISABLED=1, and all values as flags" unless [];
    ["ssh", "scp", "sftp", "rsync"] asks for "a host key, a passphrase or a password":
        "-o BatchMode=yes (for rsync: -e 'ssh -o BatchMode=yes') with a key and a known host"
        unless ["BatchMode=yes", "-oBatchMode=yes", "-B"] through ["ssh"]
        saying ["are you sure you want to continue connecting", "enter passphrase for key", "'s password:"];
    ["ssh-keygen"] asks for "a file name and a passphrase": "-f FILE -N ''" unless ["-N"]
        saying ["enter file in which to save the key", "enter passphrase (empty for no passphrase)"];
    ["sudo", "doas"] asks for "a password": "-n, so that it fails instead" unless ["-n", "--non-interactive"]
        saying ["[sudo] password for"];
    ["su", "passwd", "chsh"] asks for "a password": "running it as root, without a password" unless [];
    ["terraform", "tofu", "terragrunt"] with ["apply", "destroy"] asks for "a confirmation": "-auto-approve -input=false"
        unless ["-auto-approve", "--auto-approve"] saying ["only 'yes' will be accepted"];
    ["terraform", "tofu", "terragrunt"] asks for "a variable or a setting": "-input=false and values as -var NAME=VALUE"
        unless ["-input=false", "--input=false"] saying ["enter a value:"];
    ["pulumi"] asks for "a confirmation or a passphrase": "--yes --non-interactive" unless ["-y", "--yes", "--non-interactive"];
    ["ansible-playbook", "ansible"] asks for "a password": "--become-password-file and --vault-password-file" unless [] through ["python3"]
        saying ["become password:", "ssh password:", "vault password:"];
    ["mysql", "mariadb", "mysqldump", "mysqladmin"] asks for "a password or statements":
        "the variable MYSQL_PWD or --defaults-extra-file=FILE, and statements by -e" unless ["-e", "--execute"] saying ["enter password:"];
    ["psql", "pg_dump", "pg_restore", "createdb", "dropdb"] asks for "a password or statements":
        "-w with the variable PGPASSWORD or a file .pgpass, and statements by -c" unless ["-w", "--no-password", "-c", "-f"]
        saying ["password for user"];
    ["sqlite3", "redis-cli", "mongosh", "mongo"] asks for "statements": "the statements as an argument or from a file" unless [];
    ["aws"] with ["configure"] asks for "credentials":
        "the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or aws configure set NAME VALUE" unless ["set"]
        saying ["aws access key id"];
    ["gcloud"] asks for "a confirmation or a login": "--quiet" unless ["-q", "--quiet"] through ["python3"]
        saying ["do you want to continue (y/n)?"];
    ["az"] with ["login"] asks for "a login in a browser": "az login --service-principal" unless ["--service-principal", "--identity"]
        through ["python3"];
    ["heroku", "vercel", "netlify", "fly", "flyctl", "wrangler", "firebase"] asks for "a confirmation or a login":
        "a token in the tool's variable, and --yes or --confirm" unless ["-y", "--yes", "--confirm"] through ["node"];
    ["kubectl"] with ["edit"] asks for "changes in an editor": "kubectl apply or kubectl patch" unless [] through ["vi", "vim", "nano"];
    ["composer"] asks for "a confirmation or a setting": "--no-interaction" unless ["-n", "--no-interaction"] through ["php"];
    ["bundle", "gem"] asks for "a confirmation or a password": "--no-prompt, or -x and --force for gem uninstall"
        unless ["--no-prompt", "--force"] through ["ruby"];
    ["rails", "rake"] asks for "a confirmation": "--force or --skip" unless ["-f", "--force", "-s", "--skip"] through ["ruby"]
        saying ["overwrite /"];
    ["cargo"] with ["login"] asks for "a token": "the variable CARGO_REGISTRY_TOKEN" unless [] saying ["please paste the token found"];
    ["django-admin", "manage.py"] asks for "a confirmation or a setting": "--no-input" unless ["--no-input", "--noinput"]
        through ["python3", "python"] saying ["type 'yes' to continue, or 'no' to cancel"];
    ["gpg", "gpg2"] asks for "a choice or a passphrase": "--batch --yes, and --pinentry-mode loopback --passphrase-file FILE"
        unless ["--batch"] through ["pinentry", "pinentry-curses"] saying ["your selection?", "enter passphrase"];
    ["openssl"] asks for "a passphrase or the fields of a certificate": "-passin, -passout or -nodes, and -subj"
        unless ["-subj", "-nodes", "-passin", "-passout"] saying ["enter pem pass phrase", "country name (2 letter code)"];
    ["unzip"] asks for "what to do with a file that exists": "-o to overwrite or -n to keep it" unless ["-o", "-n"]
        saying ["[y]es, [n]o, [a]ll, [n]one, [r]ename"];
    ["7z", "7za", "7zz"] asks for "what to do with a file that exists, or a password": "-y and -pPASSWORD" unless ["-y"]
        saying ["(y)es / (n)o / (a)lways / (s)kip all"];
    ["tar", "gzip", "gunzip", "xz", "unxz", "zstd", "bzip2"] asks for "a confirmation": "-f" unless ["-f", "--force"]
        saying ["already exists; do you wish to overwrite"];
    ["rm", "rmdir"] asks for "a confirmation": "-f without -i" unless ["-f", "-rf", "-fr", "--force"]
        saying ["rm: remove ", "rm: descend into directory"];
    ["cp", "mv", "ln"] asks for "a confirmation": "-f without -i" unless ["-f", "--force"]
        saying ["cp: overwrite ", "mv: overwrite ", "mv: replace "];
    ["patch"] asks for "which file to change, or a confirmation": "--batch or --forward"
        unless ["-t", "--batch", "-N", "--forward", "-f", "--force"]
        saying ["file to patch:", "reversed (or previously applied) patch detected"];
    ["fdisk", "parted", "mkfs", "mkfs.ext4", "e2fsck", "fsck"] asks for "a confirmation": "-y, or --script for parted"
        unless ["-y", "-s", "--script"] saying ["proceed anyway? (y,n)"];
    ["certbot"] asks for "a confirmation or an address": "--non-interactive --agree-tos"
        unless ["-n", "--non-interactive", "--noninteractive"] through ["python3"];
    ["crontab", "visudo"] with ["-e"] asks for "changes in an editor": "a file as its argument" unless [] through ["vi", "vim", "nano"];
    ["less", "more", "man"] asks for "a key to go on": "cat, or the variable PAGER=cat" unless [] through ["less", "more"]
        saying ["(end)", "--more--"];
    ["systemctl", "journalctl"] asks for "a key of its pager": "--no-pager" unless ["--no-pager"] through ["less"];
    ["read", "select"] asks for "a line of input": "input from a file or a pipe" unless [];
};
