//! What usually keeps a command from asking: which tool waits, and which flag avoids its question.
//!
//! The tool is found from the process that waits, from the question, or from the command. All three come from the sandbox or the caller, so
//! only texts of the table [`tools::TOOLS`] are ever used in an answer.

mod command;
mod tools;

use super::Waiting;
use command::Simple;
use tools::{TOOLS, Tool};

/// The most bytes of a command that are examined.
const LOOKED_AT: usize = 4096;

/// A tool that a command seems to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Advice {
    /// The program's name.
    pub(super) name: &'static str,
    /// What it asks for.
    pub(super) asks: &'static str,
    /// What usually avoids the question.
    pub(super) remedy: &'static str,
}

/// The tool that a stalled command seems to wait for, unless the command already has the remedy. `last_line` is the question, if there is one.
pub(super) fn advice(command: &str, last_line: &str, waiting: Option<&Waiting>) -> Option<Advice> {
    let end = (0..=LOOKED_AT.min(command.len())).rfind(|at| command.is_char_boundary(*at)).unwrap_or(0);
    let parts = command::simple_commands(&command[..end]);
    // The last of several commands is the most likely one to wait: those before it in a list have ended.
    let in_command = |wanted: &dyn Fn(&Tool) -> bool| {
        parts.iter().rev().find_map(|part| {
            let tool = TOOLS.iter().find(|tool| runs(tool, part) && wanted(tool))?;
            Some((tool, Some(part)))
        })
    };
    let question = last_line.to_lowercase();
    let asked = |tool: &Tool| tool.questions.iter().any(|known| question.contains(known));
    let by_process = waiting.and_then(|waiting| {
        let process = |tool: &Tool| {
            tool.names.contains(&waiting.command.as_str()) || tool.processes.contains(&waiting.command.as_str())
        };
        let alone =
            || TOOLS.iter().find(|tool| tool.names.contains(&waiting.command.as_str()) && tool.subcommands.is_empty());
        in_command(&process).or_else(|| Some((alone()?, None)))
    });
    let by_question = || in_command(&asked).or_else(|| Some((TOOLS.iter().find(|tool| asked(tool))?, None)));
    let (tool, part) = by_process.or_else(by_question).or_else(|| in_command(&|_| true))?;
    let has_remedy = part.is_some_and(|part| tool.flags.iter().any(|flag| part.has(flag)));
    let program = part.map_or_else(|| waiting.map(|waiting| waiting.command.as_str()), |part| Some(part.program()));
    let name = tool.names.iter().find(|name| Some(**name) == program).unwrap_or(&tool.names[0]);
    (!has_remedy).then_some(Advice { name, asks: tool.asks, remedy: tool.remedy })
}

/// Whether a simple command runs this tool.
fn runs(tool: &Tool, part: &Simple) -> bool {
    tool.names.contains(&part.program())
        && (tool.subcommands.is_empty() || tool.subcommands.iter().any(|sub| part.has(sub)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reads;

    fn found(command: &str, last_line: &str, process: &str) -> &'static str {
        let waiting =
            (!process.is_empty()).then(|| Waiting { pid: 7, command: process.to_owned(), reads: Reads::Stdin });
        advice(command, last_line, waiting.as_ref()).map_or("", |advice| advice.name)
    }

    #[test]
    fn tool_is_found_within_the_command() {
        let cases = [
            ("apt-get install x", "apt-get"),
            ("cd /x && apt-get install y", "apt-get"),
            ("DEBIAN_PRIORITY=low LANG=C apt install y", "apt"),
            ("sudo -u root -E apt-get install y", "apt-get"),
            ("sudo env A=b apt-get install y", "apt-get"),
            ("timeout 60 nice -n 5 apt-get upgrade", "apt-get"),
            ("/usr/bin/apt-get install y; echo done", "apt-get"),
            ("bash -c 'cd /x; npm init'", "npm"),
            ("sh -lc \"npx create-thing\"", "npx"),
            ("git pull | tee log", "git"),
            ("if true; then pip uninstall x; fi", "pip"),
            ("python3 -m pip uninstall x", "pip"),
            ("(terraform apply)", "terraform"),
            ("git fetch && npm init", "npm"),
            ("echo 'apt-get install y'", ""),
            ("rm -i a", "rm"),
            ("rm a", "rm"),
            ("make", ""),
            ("", ""),
            ("'unclosed && apt-get", ""),
        ];
        for (command, expected) in cases {
            assert_eq!(found(command, "", ""), expected, "{command}");
        }
    }

    #[test]
    fn waiting_process_decides_before_the_command() {
        assert_eq!(found("git clone git@host:x && npm init", "", "ssh"), "ssh");
        assert_eq!(found("git clone git@host:x && npm init", "", "git"), "git");
        assert_eq!(found("npm init && make", "", "node"), "npm");
        assert_eq!(found("make", "", "sudo"), "sudo");
        assert_eq!(found("node server.js", "", "node"), "");
        assert_eq!(found("apt-get install x", "", "frontend"), "apt-get");
    }

    #[test]
    fn question_decides_where_no_process_is_known() {
        assert_eq!(found("git pull; npm init", "Username for 'https://host.example':", ""), "git");
        assert_eq!(
            found("./deploy", "Are you sure you want to continue connecting (yes/no/[fingerprint])?", ""),
            "ssh"
        );
        assert_eq!(found("./deploy", "[sudo] password for bob:", ""), "sudo");
        assert_eq!(found("make", "Overwrite?", ""), "");
    }

    #[test]
    fn tool_that_has_its_remedy_gets_no_advice() {
        for command in ["apt-get -y install x", "apt-get install x --yes", "sudo -n true", "npx --yes x", "rm -f x"] {
            assert_eq!(found(command, "", ""), "", "{command}");
        }
        assert_eq!(found("ssh -o BatchMode=yes host; ssh other", "", ""), "ssh");
    }

    #[test]
    fn hostile_commands_are_read_in_bounded_time() {
        for command in ["sh -c ".repeat(100_000), "((((".repeat(100_000), "'\"\\$`".repeat(100_000), "é".repeat(5000)]
        {
            let _ = found(&command, &command, &command);
        }
    }

    #[test]
    fn names_of_the_table_are_unambiguous() {
        for (index, tool) in TOOLS.iter().enumerate() {
            assert!(!tool.asks.is_empty() && !tool.remedy.is_empty() && !tool.names.is_empty(), "{tool:?}");
            for other in &TOOLS[index + 1..] {
                let shared = tool.names.iter().any(|name| other.names.contains(name));
                assert!(!shared || !tool.subcommands.is_empty(), "{tool:?} hides {other:?}");
            }
        }
    }
}
