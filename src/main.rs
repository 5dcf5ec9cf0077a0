//! The program: arguments to a command, and its exit code.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use rebound::cli::{self, exit};
use rebound::daemon;

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
    /// Send a test mail and show what becomes of each recipient.
    SendTest(cli::send_test::Arguments),
    /// Read mails and say whether they are bounces, and of what.
    Parse(cli::parse::Arguments),
    /// Classify an SMTP reply.
    Classify(cli::classify::Arguments),
}

#[derive(Args)]
struct ConfigArguments {
    /// The configuration file; without one the defaults hold.
    #[arg(long, value_name = "FILE", env = "REBOUND_CONFIG")]
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
    Hash,
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
