//! The flags of `errand serve`, generated from the table of settings, so that both always match. Values stay text: the settings module
//! parses them together with those of the environment and the file.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, builder::ValueParser};

use crate::config::{Flags, SETTINGS, Setting};

const CONFIG: &str = "config";

/// Arguments of `serve`.
#[derive(Debug)]
pub struct ServeArgs {
    /// The settings file.
    pub config: Option<PathBuf>,
    /// The settings that were given as flags.
    pub flags: Flags,
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .env("ERRAND_CONFIG")
            .value_parser(ValueParser::path_buf())
            .help("TOML file of settings; its keys are the flags with underscores");
        let after = "Every flag is also an environment variable, ERRAND_ and its name in capitals with underscores. \
                     A flag wins over the environment, that over the file.";
        command.arg(config).args(SETTINGS.iter().map(flag)).after_help(after)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(setting: &'static Setting) -> Arg {
    let help = match setting.default {
        Some(default) => format!("{} [default: {default}]", setting.help),
        None => setting.help.to_owned(),
    };
    let arg = Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(setting.value_name)
        .allow_hyphen_values(!setting.switch)
        .help(help);
    if setting.switch { arg.num_args(0..=1).require_equals(true).default_missing_value("true") } else { arg }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = SETTINGS.iter().filter_map(|setting| {
            let text = matches.get_one::<String>(setting.flag)?;
            Some((setting.flag, text.clone()))
        });
        Ok(Self { config: matches.get_one::<PathBuf>(CONFIG).cloned(), flags: Flags(given.collect()) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
