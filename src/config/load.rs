//! Turns the sources of settings into a [`Config`], or into the list of everything that is wrong with them.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
};

use super::{
    Config,
    problem::{ConfigErrors, Problem},
    settings::{SETTINGS, Setting},
    source::{Flags, Origin, SettingsFile},
    value::short_duration,
};

impl Config {
    /// Builds the configuration. A flag overrides the environment, which overrides the file, which overrides the default. An empty
    /// environment variable counts as unset.
    ///
    /// A pure function of its arguments; `env` is what [`std::env::vars_os`] returns.
    ///
    /// # Errors
    ///
    /// All problems of all sources at once. An invalid value is reported even if a stronger source overrides it.
    pub fn load(
        flags: &Flags,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        file: Option<SettingsFile>,
    ) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        let env: HashMap<OsString, OsString> = env.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let mut file = file.map(|file| file.values(&mut problems)).unwrap_or_default();

        let mut loading = Loading { config: Self::default(), problems, origins: BTreeMap::new() };
        for setting in SETTINGS {
            // From the weakest source to the strongest, so that the strongest is applied last.
            if let Some(variable) = setting.fallback_env {
                loading.apply_env(setting, variable, &env);
            }
            if let Some((origin, text)) = file.remove(&setting.key()) {
                loading.apply(setting, origin, &text);
            }
            loading.apply_env(setting, &setting.env(), &env);
            if let Some(text) = flags.0.get(setting.flag) {
                loading.apply(setting, Origin::Flag(setting.flag), text);
            }
        }
        // Unknown variables that begin with ERRAND_ are not an error: the command line has its own, and Kubernetes sets some for a service
        // of that name. An unknown key in the server's own file is an error.
        let unknown = file.into_values().map(|(origin, _)| Problem::UnknownKey { origin });
        loading.problems.extend(unknown);
        loading.check_together();

        if loading.problems.is_empty() { Ok(loading.config) } else { Err(ConfigErrors(loading.problems)) }
    }
}

/// A configuration that is being built.
struct Loading {
    config: Config,
    problems: Vec<Problem>,
    /// The origin of each setting that is not at its default, by flag name. `None`: at least one source had an invalid value.
    origins: BTreeMap<&'static str, Option<Origin>>,
}

impl Loading {
    fn apply(&mut self, setting: &'static Setting, origin: Origin, text: &str) {
        match (setting.apply)(&mut self.config, text) {
            Ok(()) => {
                let known = self.origins.entry(setting.flag).or_insert_with(|| Some(origin.clone()));
                if known.is_some() {
                    *known = Some(origin);
                }
            }
            Err(rule) => {
                self.origins.insert(setting.flag, None);
                self.problems.push(Problem::BadValue { origin, value: text.to_owned(), rule });
            }
        }
    }

    fn apply_env(&mut self, setting: &'static Setting, variable: &str, env: &HashMap<OsString, OsString>) {
        let Some(value) = env.get(&OsString::from(variable)) else { return };
        let origin = Origin::Env(variable.to_owned());
        match value.to_str() {
            Some(text) => self.apply(setting, origin, text),
            None => {
                self.origins.insert(setting.flag, None);
                self.problems.push(Problem::NotText { origin });
            }
        }
    }

    /// The origin of a setting for people, or `None` if its value is invalid.
    fn origin(&self, flag: &str) -> Option<String> {
        match self.origins.get(flag) {
            None => Some("the default".to_owned()),
            Some(origin) => origin.as_ref().map(Origin::to_string),
        }
    }

    /// Checks the rules between settings. Skips a rule if one of its settings is already reported as invalid, because the rule's result
    /// could be wrong.
    fn check_together(&mut self) {
        let config = &self.config;
        if config.default_timeout > config.max_timeout
            && let (Some(default_origin), Some(max_origin)) =
                (self.origin("default-timeout"), self.origin("max-timeout"))
        {
            let [default, max] = [config.default_timeout, config.max_timeout].map(short_duration);
            self.problems.push(Problem::Contradiction(format!(
                "default_timeout {default} ({default_origin}) is more than max_timeout {max} ({max_origin})"
            )));
        }
        let more = |default: &str, limit: &str, value: &dyn std::fmt::Display, maximum: &dyn std::fmt::Display| {
            let (origin, max_origin) = (self.origin(default)?, self.origin(limit)?);
            let [default, limit] = [default, limit].map(|flag| flag.replace('-', "_"));
            Some(Problem::Contradiction(format!(
                "{default} {value} ({origin}) is more than {limit} {maximum} ({max_origin})"
            )))
        };
        let memory = config.max_memory_bytes.filter(|max| config.memory_bytes > *max);
        let cpus = config.max_cpus.filter(|max| config.cpus > *max);
        let pids = config.max_pids_limit.filter(|max| config.pids_limit > *max);
        let found = [
            memory.and_then(|max| more("memory-bytes", "max-memory-bytes", &config.memory_bytes, &max)),
            cpus.and_then(|max| more("cpus", "max-cpus", &config.cpus, &max)),
            pids.and_then(|max| more("pids-limit", "max-pids-limit", &config.pids_limit, &max)),
        ];
        self.problems.extend(found.into_iter().flatten());
        if config.allow_adopt
            && config.tokens_file.is_some()
            && let (Some(origin), Some(_)) = (self.origin("allow-adopt"), self.origin("tokens-file"))
        {
            self.problems.push(Problem::Contradiction(format!(
                "{origin}: with a tokens file this setting has no effect: set `adopt = true` for each token that may adopt any container"
            )));
        }
        if !config.listen.ip().is_loopback()
            && config.tokens_file.is_none()
            && let (Some(origin), Some(_)) = (self.origin("listen"), self.origin("tokens-file"))
        {
            self.problems.push(Problem::Contradiction(format!(
                "{origin}: without a tokens file the server listens on loopback only, not on {}",
                config.listen
            )));
        }
    }
}
