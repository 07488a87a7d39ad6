//! Takes the secrets out of a specification before it becomes a record.

use std::{borrow::Cow, collections::BTreeMap};

use errand_masks::Masks;
use errand_secrets::Hidden;
use errand_task::{Program, Secret, TaskSpec};

/// The specification as records show it, and what it hides if a launch needs that.
pub(crate) fn conceal(spec: TaskSpec, secrets: BTreeMap<String, Secret>, masks: &Masks) -> (TaskSpec, Option<Hidden>) {
    if masks.is_empty() && secrets.is_empty() {
        return (spec, None);
    }
    let mut shown = spec.clone();
    shown.each_text(&mut |text| mask(text, masks));
    shown.secret_env = secrets.keys().cloned().collect();
    shown.concealed = shown.program != spec.program || shown.workdir != spec.workdir || shown.env != spec.env;
    let hidden = shown.has_secrets().then_some(Hidden {
        program: spec.program,
        workdir: spec.workdir,
        env: spec.env,
        secret_env: secrets,
    });
    (shown, hidden)
}

/// Whether a stored command is the wanted one, which is masked. A pattern may have been configured after the command was stored.
pub(crate) fn is_same_program(stored: &Program, wanted: &Program, masks: &Masks) -> bool {
    if stored == wanted {
        return true;
    }
    let mut stored = stored.clone();
    stored.each_text(&mut |text| mask(text, masks));
    stored == *wanted
}

/// Masks a text in place.
pub(super) fn mask(text: &mut String, masks: &Masks) {
    if let Cow::Owned(masked) = masks.text(text) {
        *text = masked;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::{sync::Arc, time::Duration};

    use errand_masks::Values;

    use super::*;

    fn spec(command: &str) -> TaskSpec {
        let program = Program::Shell { text: command.to_owned(), shell: None };
        let mut spec = TaskSpec::new(program, Duration::from_secs(1));
        spec.env = [("A".to_owned(), "to hunter2".to_owned())].into();
        spec.labels = [("l".to_owned(), "hunter2".to_owned())].into();
        spec.description = "logs in as hunter2".to_owned();
        spec
    }

    fn masks() -> Masks {
        Masks::none().and_values(&Arc::new(Values::new(["hunter2"])))
    }

    #[test]
    fn records_show_no_secret_and_launches_all() {
        let secrets: BTreeMap<_, _> = [("PASS".to_owned(), Secret::new("hunter2".to_owned()))].into();
        let (shown, hidden) = conceal(spec("login hunter2"), secrets, &masks());
        let text = format!("{shown:?} {hidden:?}");
        assert!(!text.contains("hunter2") && text.contains("login [masked]") && text.contains("PASS"), "{text}");
        assert!(shown.concealed && shown.labels["l"] == "[masked]");
        let revealed = hidden.unwrap().reveal(&shown);
        assert_eq!(revealed.program, spec("login hunter2").program);
        assert_eq!((revealed.env["PASS"].as_str(), revealed.env["A"].as_str()), ("hunter2", "to hunter2"));
        assert_eq!(revealed.secret_env, ["PASS"]);
    }

    #[test]
    fn specifications_without_secrets_stay_as_they_are() {
        for masks in [Masks::none(), masks()] {
            let plain = TaskSpec::new(Program::Argv(vec!["ls".to_owned()]), Duration::from_secs(1));
            assert_eq!(conceal(plain.clone(), BTreeMap::new(), &masks), (plain, None));
        }
    }

    #[test]
    fn same_command_is_recognised_masked() {
        let of = |text: &str| Program::Argv(vec!["login".to_owned(), text.to_owned()]);
        assert!(is_same_program(&of("hunter2"), &of("[masked]"), &masks()));
        assert!(is_same_program(&of("[masked]"), &of("[masked]"), &masks()));
        assert!(!is_same_program(&of("other"), &of("[masked]"), &masks()));
    }
}
