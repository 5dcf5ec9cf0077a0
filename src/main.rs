//! The program: arguments to a command, and its exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use rebound::cli::{self, exit};
use rebound::config::Variables;
use rebound::daemon::{self, Mode, Start};

/// An SMTP submission relay that knows what bounced.
#[derive(Parser)]
#[command(name = "rebound", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon.
    Serve(ConfigArguments),
    /// Run the daemon with a built-in destination; nothing leaves this machine.
    Dev {
        /// Where data is kept; a temporary directory unless given.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArguments,
    },
    /// Check or show the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Make the password hash of an account.
    Account {
        #[command(subcommand)]
        command: AccountCommand,
    },
    /// Manage the tokens of the HTTP interface.
    Token {
        #[command(subcommand)]
        command: cli::token::Command,
        #[command(flatten)]
        config: ConfigArguments,
    },
    /// Look into a mailbox that reports arrive in.
    Mailbox {
        #[command(subcommand)]
        command: MailboxCommand,
    },
    /// Have a webhook of the running daemon deliver; needs a token with the scope `admin`.
    Webhook {
        #[command(subcommand)]
        command: WebhookCommand,
    },
    /// Get what a mailbox needs that is logged in to with OAuth 2.
    Oauth2 {
        #[command(subcommand)]
        command: OAuth2Command,
    },
    /// Send a test mail and show what becomes of each recipient.
    SendTest(cli::send_test::Arguments),
    /// Show what bounced of a mail, or from an address.
    Bounces(cli::bounces::Arguments),
    /// Tell the whole story of a mail.
    Explain(cli::explain::Arguments),
    /// Look at the queue, and at what can be done with a mail in it.
    Queue {
        #[command(subcommand)]
        command: cli::queue::Command,
    },
    /// Read mails offline and say whether they are bounces, and of what.
    Parse(cli::parse::Arguments),
    /// Say what an SMTP reply means.
    Classify(cli::classify::Arguments),
    /// Read stored reports again with the rules of today, and show what differs.
    Reparse(cli::reparse::Arguments),
}

#[derive(Args)]
struct ConfigArguments {
    /// The configuration file; without one the defaults hold.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is good, and where it is not.
    Check(ConfigArguments),
    /// Print the settings that differ from the defaults.
    Show {
        /// Print every setting with where it came from.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        config: ConfigArguments,
    },
}

#[derive(Subcommand)]
enum AccountCommand {
    /// Read a password from standard input and print its hash.
    Hash {
        /// Make a verifier of SCRAM-SHA-256, with which the password need not be sent.
        #[arg(long)]
        scram: bool,
    },
}

#[derive(Subcommand)]
enum MailboxCommand {
    /// Log in, list the folders and show what would be read; nothing is changed.
    Check {
        /// Its name in the configuration.
        name: String,
        #[command(flatten)]
        config: ConfigArguments,
    },
}

#[derive(Subcommand)]
enum WebhookCommand {
    /// Send an event that is none, and say what came of it.
    Test {
        /// Its name in the configuration.
        name: String,
        #[command(flatten)]
        daemon: cli::api::DaemonArguments,
    },
    /// Deliver events once more.
    Replay {
        /// Its name in the configuration.
        name: String,
        #[command(flatten)]
        events: cli::webhook::ReplayArguments,
        #[command(flatten)]
        daemon: cli::api::DaemonArguments,
    },
}

#[derive(Subcommand)]
enum OAuth2Command {
    /// Show a code, wait until somebody has agreed with it, and keep the refresh token.
    Login {
        /// The name of the mailbox in the configuration.
        name: String,
        #[command(flatten)]
        config: ConfigArguments,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let shown = error.print();
            drop(shown);
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    ExitCode::from(run(arguments.command))
}

fn run(command: Command) -> u8 {
    match command {
        Command::Serve(config) => serve(config.config, Mode::Serve),
        Command::Dev { data_dir, config } => serve(config.config, Mode::Dev(data_dir)),
        Command::Config { command: ConfigCommand::Check(config) } => {
            cli::config::check(config.config.as_deref(), &Process)
        }
        Command::Config { command: ConfigCommand::Show { all, config } } => {
            cli::config::show(config.config.as_deref(), all, &Process)
        }
        Command::Account { command: AccountCommand::Hash { scram } } => cli::account::hash(scram),
        Command::Token { command, config } => {
            cli::token::run(command, config.config.as_deref(), &Process)
        }
        Command::Mailbox { command: MailboxCommand::Check { name, config } } => {
            cli::mailbox::check(&name, config.config.as_deref(), &Process)
        }
        Command::Webhook { command: WebhookCommand::Test { name, daemon } } => {
            cli::webhook::test(&name, &daemon, &Process)
        }
        Command::Webhook { command: WebhookCommand::Replay { name, events, daemon } } => {
            cli::webhook::replay(&name, &events, &daemon, &Process)
        }
        Command::Oauth2 { command: OAuth2Command::Login { name, config } } => {
            cli::oauth2::login(&name, config.config.as_deref(), &Process)
        }
        Command::SendTest(arguments) => cli::send_test::run(&arguments, &Process),
        Command::Bounces(arguments) => cli::bounces::run(&arguments, &Process),
        Command::Explain(arguments) => cli::explain::run(&arguments, &Process),
        Command::Queue { command } => cli::queue::run(&command, &Process),
        Command::Parse(arguments) => cli::parse::run(&arguments),
        Command::Classify(arguments) => cli::classify::run(&arguments),
        Command::Reparse(arguments) => cli::reparse::run(&arguments, &Process),
    }
}

fn serve(config_file: Option<PathBuf>, mode: Mode) -> u8 {
    daemon::run(&Start { config_file, mode, environment: &Process })
}

/// The environment of this process; settings come from it through here and nowhere else.
struct Process;

impl Variables for Process {
    #[expect(clippy::disallowed_methods, reason = "this is what hands the environment to config")]
    fn value(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::CommandFactory;

    #[test]
    fn every_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
