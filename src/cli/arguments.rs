//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A personal agent daemon for small boards.
#[derive(Debug, Parser)]
#[command(name = "spacebot", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the daemon; on a terminal, open a chat with the default agent.
    Run {
        #[command(flatten)]
        config: ConfigPath,
        /// Do not open a chat, also on a terminal.
        #[arg(long)]
        no_chat: bool,
    },
    /// Validate the config and print the resolved values, secrets hidden.
    Check {
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Talk to the running daemon.
    Chat {
        #[command(flatten)]
        config: ConfigPath,
        /// Send this one message, print the answer and leave.
        #[arg(long, value_name = "TEXT")]
        once: Option<String>,
        /// The agent to talk to; the default agent without it.
        #[arg(long)]
        agent: Option<String>,
        /// A conversation of its own.
        #[arg(long, default_value = "terminal")]
        session: String,
    },
}

#[derive(Debug, Args)]
pub struct ConfigPath {
    /// The config file. Without it: $SPACEBOT_DIR/config.toml, ~/.spacebot/config.toml, /etc/spacebot/config.toml, defaults.
    #[arg(long = "config", short = 'c', value_name = "FILE")]
    pub file: Option<PathBuf>,
}
