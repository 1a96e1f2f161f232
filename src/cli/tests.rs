use super::*;
use clap::CommandFactory;
use std::collections::BTreeMap;

/// Collects every variable of a command and its subcommands, with its default.
fn variables(command: &clap::Command, found: &mut BTreeMap<String, Option<String>>) {
    for argument in command.get_arguments() {
        if let Some(name) = argument.get_env() {
            let default = argument.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
            found.insert(name.to_string_lossy().into_owned(), default);
        }
    }
    command.get_subcommands().for_each(|command| variables(command, found));
}

#[test]
fn the_example_and_the_documentation_have_every_variable_and_its_default() {
    let mut known = BTreeMap::new();
    variables(&Cli::command(), &mut known);
    let read = |file: &str| std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).expect(file);
    let example = read(".env.example");
    let shown: BTreeMap<&str, &str> = example
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once('='))
        .filter(|(name, _)| !name.contains(' '))
        .collect();
    assert_eq!(shown.keys().copied().collect::<Vec<_>>(), known.keys().map(String::as_str).collect::<Vec<_>>());
    let documented = read("docs/CONFIGURATION.md");
    for (name, default) in &known {
        let row = documented.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).expect(name);
        if let Some(default) = default {
            assert_eq!(shown[name.as_str()], default, "{name}");
            assert!(row.contains(&format!("| `{default}`")), "{name}: {row}");
        }
    }
}

#[test]
fn the_kill_file_is_read_alike_by_every_command_that_knows_it() {
    for (said, found) in [(" /k ", "/k"), ("", "")] {
        let read = |command: &str| {
            let words = ["holdfast", command, "--kill-file", said];
            match Cli::try_parse_from(words).expect("it is a file").command {
                Some(Command::Kill(args)) => args.kill_file,
                Some(Command::Review { kill_file, .. }) => kill_file,
                Some(Command::Serve(args)) => args.enforcement.kill_file,
                command => panic!("{command:?}"),
            }
        };
        for command in ["serve", "kill", "review"] {
            assert_eq!(read(command), Some(PathBuf::from(found)), "{command}");
        }
    }
}
