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
    /// List the models of each kind of process and the providers behind them; asks nobody without --check.
    Models {
        #[command(flatten)]
        config: ConfigPath,
        /// Whose models; the default agent's without it.
        #[arg(long)]
        agent: Option<String>,
        /// As one line of JSON.
        #[arg(long)]
        json: bool,
        /// Ask each provider, with one request that uses no model, whether it answers and takes the key.
        #[arg(long)]
        check: bool,
    },
    /// List the skills that an agent is offered, where they lie, and what is wrong with the others; needs no daemon.
    Skills {
        #[command(flatten)]
        config: ConfigPath,
        /// Whose; the default agent's without it.
        #[arg(long)]
        agent: Option<String>,
        /// One line of JSON for each.
        #[arg(long)]
        json: bool,
    },
    /// Look into, search, import and export memories; needs no daemon and may run beside one.
    Memory {
        #[command(flatten)]
        config: ConfigPath,
        /// Whose memories; the default agent's without it.
        #[arg(long, global = true)]
        agent: Option<String>,
        #[command(subcommand)]
        action: MemoryAction,
    },
    /// Say what became of a message: processes, model calls, tokens, memories, tools, answers.
    Why {
        #[command(flatten)]
        config: ConfigPath,
        /// Whose message; the default agent's without it.
        #[arg(long)]
        agent: Option<String>,
        /// Its id on the platform, or the end of it; the last message without it.
        message: Option<String>,
        /// As one line of JSON, with every record.
        #[arg(long)]
        json: bool,
    },
    /// Ask the cortex, which sees all conversations of an agent, over the running daemon.
    Cortex {
        #[command(flatten)]
        config: ConfigPath,
        /// Whose cortex; the default agent's without it.
        #[arg(long)]
        agent: Option<String>,
        /// A conversation of its own.
        #[arg(long, default_value = "terminal")]
        thread: String,
        /// What it is about: the cortex sees the last lines of this conversation (`spacebot channel list`).
        #[arg(long, value_name = "ID")]
        channel: Option<String>,
        message: String,
    },
    /// Do a recorded run once more from its journal, without asking, doing or writing anything, and say whether it comes
    /// to the same.
    Replay {
        #[command(flatten)]
        config: ConfigPath,
        /// Whose run; the default agent's without it.
        #[arg(long)]
        agent: Option<String>,
        /// Its number, as `spacebot why` shows it; the last run without it.
        run: Option<String>,
        /// All runs, one line for each.
        #[arg(long, conflicts_with = "run")]
        all: bool,
    },
    /// Look at and change the task board; needs no daemon, and tells a running one what it changes.
    Task {
        #[command(flatten)]
        config: ConfigPath,
        /// Whose board; the default agent's without it.
        #[arg(long, global = true)]
        agent: Option<String>,
        /// Print JSON.
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        action: TaskAction,
    },
    /// Hand files to an agent's memory, or show how far they are; needs no daemon and may run beside one.
    Ingest {
        #[command(flatten)]
        config: ConfigPath,
        /// Whose memory; the default agent's without it.
        #[arg(long)]
        agent: Option<String>,
        /// Copied into the folder of the agent: txt md markdown json jsonl csv tsv log xml yaml yml toml rst org html
        /// htm pdf.
        #[arg(required_unless_present = "status")]
        files: Vec<PathBuf>,
        /// Show every file with its parts.
        #[arg(long)]
        status: bool,
        /// The same as lines of JSON.
        #[arg(long, requires = "status")]
        json: bool,
    },
    /// The daemon starts this for each document that it takes into memory.
    #[command(hide = true)]
    Extract { format: String },
    /// Look at the jobs that run at their time; needs no daemon and may run beside one.
    Cron {
        #[command(flatten)]
        config: ConfigPath,
        /// Whose jobs; the default agent's without it.
        #[arg(long, global = true)]
        agent: Option<String>,
        #[command(subcommand)]
        action: CronAction,
    },
    /// Look at the conversations and set how the agent behaves in one; needs no daemon and may run beside one.
    Channel {
        #[command(flatten)]
        config: ConfigPath,
        /// Whose conversations; the default agent's without it.
        #[arg(long, global = true)]
        agent: Option<String>,
        #[command(subcommand)]
        action: ChannelAction,
    },
    /// What model calls took and cost, and how much of each ceiling is used; needs no daemon and may run beside one.
    Usage {
        #[command(flatten)]
        config: ConfigPath,
        /// day, model, agent, conversation or process.
        #[arg(long, default_value = "day")]
        by: String,
        /// From this day (UTC) on; the first of this month without it.
        #[arg(long, value_name = "DATE")]
        since: Option<String>,
        /// As one line of JSON.
        #[arg(long)]
        json: bool,
        /// After the clock had run ahead: calls that are dated later than now become calls of today.
        #[arg(long, conflicts_with_all = ["json", "since"])]
        redate: bool,
    },
    /// What goes on in the running daemon, as it goes on: answers, reasoning and tool calls piece by piece.
    Watch {
        #[command(flatten)]
        config: ConfigPath,
        /// Of this agent only.
        #[arg(long)]
        agent: Option<String>,
        /// Of this conversation only, by its full name, such as portal:chat:default:main.
        #[arg(long)]
        conversation: Option<String>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// What an agent and others have asked of each other and what came back; needs no daemon and may run beside one.
    Links {
        #[command(flatten)]
        config: ConfigPath,
        /// Whose; the default agent's without it.
        #[arg(long)]
        agent: Option<String>,
        /// Only what was said with this agent.
        #[arg(long, value_name = "AGENT")]
        with: Option<String>,
        /// The newest so many questions of either direction.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// One line of JSON for each.
        #[arg(long)]
        json: bool,
    },
    /// Talk to the running daemon.
    Chat {
        #[command(flatten)]
        config: ConfigPath,
        /// Send this one message, print the answer and leave.
        #[arg(long, value_name = "TEXT")]
        once: Option<String>,
        /// Send this file with it; may be named again.
        #[arg(long, value_name = "FILE", requires = "once")]
        attach: Vec<PathBuf>,
        /// The agent to talk to; the default agent without it.
        #[arg(long)]
        agent: Option<String>,
        /// A conversation of its own.
        #[arg(long, default_value = "terminal")]
        session: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum MemoryAction {
    /// Read memories from FILE: lines of JSON, the database of the original Spacebot (.db), or Markdown notes (.md, or
    /// a folder with MEMORY.md and memory/*.md). What was imported before is passed over.
    Import { file: PathBuf },
    /// Write all memories as lines of JSON.
    Export {
        /// Standard output without it.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The forgotten ones too.
        #[arg(long)]
        forgotten: bool,
    },
    /// Find memories.
    Search {
        /// Words, or a question. Needed unless --mode or --queries is given.
        query: Option<String>,
        /// hybrid, recent, important or typed.
        #[arg(long, default_value = "hybrid")]
        mode: String,
        /// Only memories of this type; needed by --mode typed.
        #[arg(long = "type", value_name = "TYPE")]
        memory_type: Option<String>,
        /// 1 to 50.
        #[arg(long, default_value_t = 10)]
        limit: usize,
        /// Lines of JSON with id and query; each is answered with one line.
        #[arg(long, value_name = "FILE", requires = "json", conflicts_with = "query")]
        queries: Option<PathBuf>,
        #[arg(long)]
        json: bool,
        /// Only these parts of a hybrid search, for measurements: words, meaning, by_rank, locality, second_pass, dates,
        /// graph.
        #[arg(long, value_name = "LIST")]
        parts: Option<String>,
    },
    /// What happened lately, the newest first.
    Events {
        /// 1 to 10000.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        limit: u16,
        /// One line of JSON for each.
        #[arg(long)]
        json: bool,
    },
    /// Make the indexes anew from the database.
    Reindex,
    /// What is stored, and the state of the indexes.
    Stats,
    /// Pairs of memories that may contradict each other.
    Proposals,
    /// Say what such a pair is: contradicts, updates (the newer takes the place of the older) or unrelated.
    Decide {
        /// Number of the proposal.
        proposal: i64,
        decision: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum ChannelAction {
    /// All conversations, the last active first: response mode, delegation, memory mode, context of workers, models
    /// other than the agent's; with a star where it is set for this conversation and not by the config.
    List {
        /// One line of JSON for each.
        #[arg(long)]
        json: bool,
    },
    /// Set what holds in one conversation; `default` leaves it to the config again.
    Set {
        conversation: String,
        #[command(flatten)]
        change: Box<ChannelChange>,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct ChannelChange {
    /// active, observe or mention_only.
    #[arg(long)]
    pub response_mode: Option<String>,
    /// standard, or direct: the channel itself has the tools of branches and workers.
    #[arg(long)]
    pub delegation: Option<String>,
    /// full, ambient (nothing is saved) or off.
    #[arg(long)]
    pub memory_mode: Option<String>,
    /// none, or fork: workers begin with the history of the conversation.
    #[arg(long)]
    pub worker_context: Option<String>,
    /// provider/model of its turns.
    #[arg(long, value_name = "MODEL")]
    pub channel_model: Option<String>,
    /// provider/model of its branches, and of whoever takes memories from it.
    #[arg(long, value_name = "MODEL")]
    pub branch_model: Option<String>,
    /// provider/model of its workers; types of tasks with a model of their own keep that.
    #[arg(long, value_name = "MODEL")]
    pub worker_model: Option<String>,
    /// provider/model that summarises it.
    #[arg(long, value_name = "MODEL")]
    pub compactor_model: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum CronAction {
    /// All jobs and when they run next.
    List {
        /// One line of JSON for each.
        #[arg(long)]
        json: bool,
    },
    /// The latest runs: how each ended, and what became of its outcome.
    Runs {
        /// Only those of this job.
        #[arg(long, value_name = "ID")]
        job: Option<String>,
        /// At most 1000.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// One line of JSON for each.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum TaskAction {
    /// Tasks, the most urgent first; without those that are done or failed.
    List {
        /// pending_approval, backlog, ready, in_progress, done or failed.
        #[arg(long)]
        status: Option<String>,
        /// critical, high, medium or low.
        #[arg(long)]
        priority: Option<String>,
        /// Those that are over too.
        #[arg(long)]
        all: bool,
        /// 1 to 200.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// One task with its attempts.
    Show { number: u64 },
    /// Let a worker begin it.
    Approve { number: u64 },
    /// Put a new task into the backlog.
    Create {
        title: String,
        #[arg(long)]
        description: Option<String>,
        /// critical, high, medium or low.
        #[arg(long, default_value = "medium")]
        priority: String,
        /// One part of it; may be given again.
        #[arg(long = "subtask", value_name = "TITLE")]
        subtasks: Vec<String>,
        /// Let a worker begin at once.
        #[arg(long)]
        ready: bool,
    },
    /// Put it aside into the backlog; its worker stops.
    Cancel { number: u64 },
}

#[derive(Debug, Args)]
pub struct ConfigPath {
    /// The config file. Without it: $SPACEBOT_DIR/config.toml, ~/.spacebot/config.toml, /etc/spacebot/config.toml, defaults.
    #[arg(id = "config", long = "config", short = 'c', value_name = "FILE", global = true)]
    pub file: Option<PathBuf>,
}
