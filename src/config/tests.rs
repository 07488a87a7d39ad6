#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{ffi::OsString, io, path::PathBuf, time::Duration};

use super::*;

fn flags(pairs: &[(&'static str, &str)]) -> Flags {
    Flags(pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
}

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn file(text: &str) -> Option<SettingsFile> {
    Some(SettingsFile { path: PathBuf::from("errand.toml"), text: Ok(text.to_owned()) })
}

fn errors(result: Result<Config, ConfigErrors>) -> Vec<String> {
    result.unwrap_err().to_string().lines().map(str::to_owned).collect()
}

#[test]
fn settings_without_source_have_documented_defaults() {
    let config = Config::load(&Flags::default(), [], None).unwrap();
    assert_eq!(
        config,
        Config {
            listen: "127.0.0.1:7543".parse().unwrap(),
            data_dir: "./errand-data".into(),
            runtime: RuntimeKind::Auto,
            docker_host: None,
            tokens_file: None,
            image: None,
            memory_bytes: 2 << 30,
            cpus: 2.0,
            pids_limit: 2048,
            network_mode: None,
            max_memory_bytes: None,
            max_cpus: None,
            max_pids_limit: None,
            disk_bytes: 10 << 30,
            max_sandboxes_per_tenant: 2048,
            allow_images: errand_task::Patterns::all(),
            allow_networks: errand_task::Patterns::parse("bridge,none").unwrap(),
            allow_adopt: false,
            allow_addresses: Vec::new(),
            task_root: "/tmp/errand".to_owned(),
            stop_tasks_on_exit: false,
            max_running_per_bot: 64,
            max_running_per_tenant: 1024,
            max_queued_per_bot: 1000,
            max_queued_per_tenant: 10_000,
            max_stored_tasks_per_tenant: 1_000_000,
            max_stored_bytes_per_tenant: 10 << 30,
            max_requests_per_second: 20_000,
            max_calls_per_tenant: 20_000,
            max_subscriptions_per_bot: 2048,
            max_connections: 8192,
            max_connections_per_tenant: 4096,
            default_timeout: Duration::from_mins(30),
            max_timeout: Duration::from_hours(24),
            stall_after: Duration::from_secs(45),
            stall_check_interval: Duration::from_secs(5),
            watch_interval: Duration::from_secs(15),
            watch_budget: 15,
            watch_budget_period: Duration::from_secs(10),
            watch_pause: Duration::from_secs(30),
            stop_grace: Duration::from_secs(2),
            sandbox_idle_stop: Duration::ZERO,
            idle_task_age: Duration::from_hours(24),
            retention: Duration::from_hours(24),
            notification_retention: Duration::from_hours(7 * 24),
            retained_output: 1 << 20,
            launch_concurrency: 32,
            lease_duration: Duration::from_secs(60),
            mask_patterns: errand_masks::Patterns::known().map(str::to_owned).collect(),
            mask_reads: errand_engine::MaskReads::Values,
            key_file: None,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
        }
    );
}

#[test]
fn every_setting_works_as_flag_variable_and_key() {
    let samples = [
        ("listen", "127.0.0.1:80"),
        ("data-dir", "/data"),
        ("runtime", "docker"),
        ("docker-host", "unix:///run/docker.sock"),
        ("tokens-file", "/etc/tokens"),
        ("image", "alpine"),
        ("memory-bytes", "512MiB"),
        ("cpus", "1.5"),
        ("pids-limit", "100"),
        ("network-mode", "none"),
        ("max-memory-bytes", "1GiB"),
        ("max-cpus", "3"),
        ("max-pids-limit", "200"),
        ("disk-bytes", "1GiB"),
        ("max-sandboxes-per-tenant", "5"),
        ("allow-images", "debian:*, alpine"),
        ("allow-networks", "none"),
        ("allow-adopt", "false"),
        ("allow-addresses", "10.1.0.0/16, fd00::/8"),
        ("task-root", "/var/errand/"),
        ("stop-tasks-on-exit", "true"),
        ("max-running-per-bot", "1"),
        ("max-running-per-tenant", "2"),
        ("max-queued-per-bot", "3"),
        ("max-queued-per-tenant", "4"),
        ("max-stored-tasks-per-tenant", "1000"),
        ("max-stored-bytes-per-tenant", "1GiB"),
        ("max-requests-per-second", "100"),
        ("max-calls-per-tenant", "50"),
        ("max-subscriptions-per-bot", "10"),
        ("max-connections", "40"),
        ("max-connections-per-tenant", "20"),
        ("default-timeout", "1m"),
        ("max-timeout", "2m"),
        ("stall-after", "10s"),
        ("stall-check-interval", "1s"),
        ("watch-interval", "2s"),
        ("watch-budget", "3"),
        ("watch-budget-period", "4s"),
        ("watch-pause", "5s"),
        ("stop-grace", "500ms"),
        ("sandbox-idle-stop", "30m"),
        ("idle-task-age", "2h"),
        ("retention", "7d"),
        ("notification-retention", "30d"),
        ("retained-output", "64KiB"),
        ("launch-concurrency", "3"),
        ("lease-duration", "5s"),
        ("mask-patterns", "ACME-[0-9]+"),
        ("mask-reads", "all"),
        ("key-file", "/etc/errand/key"),
        ("log-format", "json"),
        ("log-level", "errand=debug,info"),
    ];
    assert_eq!(samples.map(|(flag, _)| flag).to_vec(), SETTINGS.iter().map(|s| s.flag).collect::<Vec<_>>());

    let by_flag = Config::load(&flags(&samples), [], None).unwrap();
    let variables: Vec<_> =
        SETTINGS.iter().zip(samples).map(|(setting, (_, value))| (setting.env().into(), value.into())).collect();
    let lines: Vec<String> =
        SETTINGS.iter().zip(samples).map(|(setting, (_, value))| format!("{} = {value:?}", setting.key())).collect();
    assert_eq!(Config::load(&Flags::default(), variables, None).unwrap(), by_flag);
    assert_eq!(Config::load(&Flags::default(), [], file(&lines.join("\n"))).unwrap(), by_flag);
    assert_eq!(by_flag.memory_bytes, 512 << 20);
    assert_eq!(by_flag.task_root, "/var/errand");
    assert_eq!(by_flag.log_format, LogFormat::Json);
}

#[test]
fn flag_beats_environment_and_environment_beats_file() {
    let text = "image = 'from-file'\ncpus = 4\npids_limit = 300\n";
    let env = || env(&[("ERRAND_IMAGE", "from-env"), ("ERRAND_CPUS", "3"), ("ERRAND_PIDS_LIMIT", "")]);
    let config = Config::load(&flags(&[("image", "from-flag")]), env(), file(text)).unwrap();
    assert_eq!(config.image.as_deref(), Some("from-flag"));
    assert_eq!(config.cpus, 3.0);
    assert_eq!(config.pids_limit, 300, "an empty variable counts as unset");
}

#[test]
fn docker_host_variable_has_lowest_precedence() {
    let env = || env(&[("DOCKER_HOST", "unix:///a")]);
    let host = |flags: &Flags, text| Config::load(flags, env(), file(text)).unwrap().docker_host.unwrap();
    assert_eq!(host(&Flags::default(), ""), "unix:///a");
    assert_eq!(host(&Flags::default(), "docker_host = 'unix:///b'"), "unix:///b");
    assert_eq!(host(&flags(&[("docker-host", "unix:///c")]), "docker_host = 'unix:///b'"), "unix:///c");
}

#[test]
fn all_mistakes_are_reported_with_origin_and_rule() {
    let flags = flags(&[("listen", "here"), ("max-running-per-bot", "0"), ("network-mode", "host")]);
    let env = env(&[("ERRAND_CPUS", "many"), ("ERRAND_RETENTION", "24"), ("ERRAND_SERVICE_HOST", "10.0.0.1")]);
    let text = "memory_bytes = 1000\nimagee = 'x'\nstop_grace = '2m'\nlog_level = ['info']\ntask_root = 'tmp'\n";
    let lines = errors(Config::load(&flags, env, file(text)));
    let expected = [
        "log_level in errand.toml, line 4: \"[\\\"info\\\"]\" is not a text, a number, true or false",
        "--listen: \"here\" is not an IP address and port, such as 127.0.0.1:7543",
        "memory_bytes in errand.toml, line 1: \"1000\" is not a size such as 512MiB, 2GiB or a plain number of bytes, at least 6MiB",
        "ERRAND_CPUS: \"many\" is not a number of cores from 0.01 to 1024",
        "--network-mode: \"host\" is not `bridge`, `none` or the name of a network; `host` and `container:…` are refused",
        "task_root in errand.toml, line 5: \"tmp\" is not an absolute path in the sandbox other than /, without `..`",
        "--max-running-per-bot: \"0\" is not a whole number from 1 to 1000000",
        "stop_grace in errand.toml, line 3: \"2m\" is not a duration from 1ms to 1m with its unit, such as 30s",
        "ERRAND_RETENTION: \"24\" is not a duration from 1ms to 365d with its unit, such as 30s",
        "imagee in errand.toml, line 2: unknown setting",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn overridden_bad_value_is_still_reported() {
    let lines = errors(Config::load(&flags(&[("cpus", "1")]), env(&[("ERRAND_CPUS", "-1")]), file("cpus = 0")));
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn unreadable_file_is_reported_with_other_mistakes() {
    let gone = SettingsFile {
        path: PathBuf::from("gone.toml"),
        text: Err(io::Error::new(io::ErrorKind::NotFound, "not there")),
    };
    let lines = errors(Config::load(&flags(&[("cpus", "0")]), [], Some(gone)));
    assert_eq!(lines[0], "cannot read gone.toml: not there");
    assert!(lines[1].starts_with("--cpus"), "{lines:?}");

    let lines = errors(Config::load(&Flags::default(), [], file("cpus = 1\npids_limit = 99999999999999999999\n")));
    assert_eq!(lines, ["errand.toml, line 2: pids_limit: the number is out of range"]);

    let lines = errors(Config::load(&Flags::default(), [], file("cpus = 1\nimage = = 2\n")));
    assert!(lines[0].starts_with("errand.toml, line 2: "), "{lines:?}");
    assert_eq!(lines.len(), 1);
}

#[test]
fn the_default_timeout_must_not_exceed_the_maximum() {
    let lines = errors(Config::load(&flags(&[("max-timeout", "10m")]), [], None));
    assert_eq!(lines, ["default_timeout 30m (the default) is more than max_timeout 10m (--max-timeout)"]);
    let lines = errors(Config::load(&flags(&[("max-timeout", "soon"), ("default-timeout", "48h")]), [], None));
    assert_eq!(lines.len(), 1, "a bad maximum draws no second complaint: {lines:?}");
}

#[test]
fn a_default_limit_must_not_exceed_its_maximum() {
    let lines = errors(Config::load(&flags(&[("max-cpus", "1"), ("max-memory-bytes", "1GiB")]), [], None));
    let expected = [
        "memory_bytes 2147483648 (the default) is more than max_memory_bytes 1073741824 (--max-memory-bytes)",
        "cpus 2 (the default) is more than max_cpus 1 (--max-cpus)",
    ];
    assert_eq!(lines, expected);
    assert!(Config::load(&flags(&[("memory-bytes", "64GiB"), ("cpus", "64")]), [], None).is_ok());
}

#[test]
fn tokens_file_replaces_the_adoption_setting() {
    let lines = errors(Config::load(&flags(&[("allow-adopt", "true"), ("tokens-file", "/t")]), [], None));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("--allow-adopt: with a tokens file"), "{lines:?}");
    assert!(Config::load(&flags(&[("allow-adopt", "true")]), [], None).unwrap().allow_adopt);
}

#[test]
fn listening_beyond_loopback_requires_a_tokens_file() {
    for open in ["0.0.0.0:7543", "192.168.1.2:7543", "[::]:7543"] {
        let lines = errors(Config::load(&Flags::default(), env(&[("ERRAND_LISTEN", open)]), None));
        let expected =
            format!("ERRAND_LISTEN: without a tokens file the server listens on loopback only, not on {open}");
        assert_eq!(lines, [expected]);
        let flags = flags(&[("listen", open), ("tokens-file", "/etc/errand/tokens")]);
        assert!(Config::load(&flags, [], None).is_ok());
    }
    for loopback in ["127.0.0.1:0", "127.8.8.8:1", "[::1]:7543"] {
        assert!(Config::load(&flags(&[("listen", loopback)]), [], None).is_ok());
    }
}

#[test]
fn sizes_are_bytes_or_have_binary_units() {
    for (text, bytes) in [("2GiB", 2 << 30), ("512 MiB", 512 << 20), ("6291456", 6 << 20), ("1TiB", 1 << 40)] {
        assert_eq!(value::memory(text).unwrap(), bytes);
    }
    for text in ["2GB", "2G", "", "GiB", "-1", "1.5GiB", "99999999TiB"] {
        assert!(value::memory(text).is_err(), "{text}");
    }
}

#[test]
fn mask_patterns_add_to_the_known_or_replace_them() {
    let patterns =
        |text: &str| Config::load(&flags(&[("mask-patterns", text)]), [], None).map(|config| config.mask_patterns);
    let known = errand_masks::Patterns::known().count();
    assert_eq!(patterns("none").unwrap(), Vec::<String>::new());
    assert_eq!(patterns("a+\n\n b{2}").unwrap(), ["a+", "b{2}"]);
    assert_eq!(patterns("default\nACME-[0-9]+").unwrap().len(), known + 1);
    assert!(
        errors(Config::load(&flags(&[("mask-patterns", "a\nb(")]), [], None))[0]
            .contains("the pattern 2 is no regular")
    );
    assert!(patterns("a*").is_err() && patterns(" ").is_err());
}
