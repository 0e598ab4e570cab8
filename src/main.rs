//! The binary: reads the config, builds everything once, waits for a signal, stops in order.

mod assembly;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use spacebot::cli::arguments::{Arguments, Command};
use spacebot::cli::chat::Chat;
use spacebot::cli::{self, channel, cron, links, logger, memory, task, why};
use spacebot::config::{self, Config};
use spacebot::error::{Fault, log_line};
use spacebot::ingest::{self, Format};
use spacebot::{allocator, environment, thread};

use assembly::{Daemon, Options, StartError};

/// The config is wrong; nothing was started.
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    environment::settle();
    allocator::tune();
    match Arguments::parse().command {
        Command::Run { config, no_chat } => {
            let file = config.file;
            with_config(file.as_deref(), |config| run(config, file.clone(), no_chat))
        }
        Command::Ingest { config, agent, files, status, json } => {
            let options = cli::ingest::Options { agent, files, status, json };
            with_config(config.file.as_deref(), |config| match cli::ingest::run(config, &options) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => failed(&error),
            })
        }
        Command::Extract { format } => extract(&format),
        Command::Check { config } => with_config(config.file.as_deref(), |config| {
            print!("{}", config::describe(config));
            ExitCode::SUCCESS
        }),
        Command::Models { config, agent, json, check } => with_config(config.file.as_deref(), |config| {
            match cli::models::run(config, agent.as_deref(), json, check) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => failed(&error),
            }
        }),
        Command::Skills { config, agent, json } => with_config(config.file.as_deref(), |config| {
            match cli::skills::run(config, agent.as_deref(), json) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => failed(&error),
            }
        }),
        Command::Memory { config, agent, action } => with_config(config.file.as_deref(), |config| {
            match memory::run(config, agent.as_deref(), action) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => failed(&error),
            }
        }),
        Command::Channel { config, agent, action } => with_config(config.file.as_deref(), |config| {
            let done = channel::run(config, agent.as_deref(), &action);
            done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
        }),
        Command::Links { config, agent, with, limit, json } => {
            with_config(config.file.as_deref(), |config| {
                let done = links::run(config, agent.as_deref(), with.as_deref(), limit, json);
                done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
            })
        }
        Command::Cron { config, agent, action } => with_config(config.file.as_deref(), |config| {
            let done = cron::run(config, agent.as_deref(), &action);
            done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
        }),
        Command::Why { config, agent, message, json } => with_config(config.file.as_deref(), |config| {
            let outcome = why::run(config, agent.as_deref(), message.as_deref(), json);
            outcome.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
        }),
        Command::Replay { config, agent, run, all } => with_config(config.file.as_deref(), |config| {
            match assembly::replay::run(config, agent.as_deref(), run.as_deref(), all) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => failed(&error),
            }
        }),
        Command::Task { config, agent, json, action } => with_config(config.file.as_deref(), |config| {
            let done = task::run(config, agent.as_deref(), json, action);
            done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
        }),
        Command::Cortex { config, agent, thread, channel, message } => {
            with_config(config.file.as_deref(), |config| {
                let done = cli::cortex::run(config, agent.as_deref(), &thread, channel.as_deref(), &message);
                done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
            })
        }
        Command::Usage { config, by, since, json, redate } => with_config(config.file.as_deref(), |config| {
            let options = cli::usage::Options { by, since, json, redate };
            let done = cli::usage::run(config, &options);
            done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
        }),
        Command::Watch { config, agent, conversation, json } => {
            let options = cli::watch::Options { agent, conversation, json };
            with_config(config.file.as_deref(), |config| {
                let done = cli::watch::run(config, &options);
                done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
            })
        }
        Command::Chat { config, once, attach, agent, session } => {
            with_config(config.file.as_deref(), |config| {
                let outcome = Chat::new(&config.api, agent, &session).and_then(|chat| match once {
                    Some(text) => chat.once(&text, &attach, &mut std::io::stdout()),
                    None => chat.interactive(std::io::stdin().lock(), std::io::stdin().is_terminal()),
                });
                outcome.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
            })
        }
    }
}

/// The process that reads one document; see `spacebot::ingest`.
fn extract(format: &str) -> ExitCode {
    let outcome = match Format::parse(format) {
        Some(format) => ingest::extract(format),
        None => Err(format!("{format:?} is no format")),
    };
    match outcome {
        Ok(note) => {
            if let Some(note) = note {
                eprintln!("{note}");
            }
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn failed(error: &dyn Fault) -> ExitCode {
    eprintln!("spacebot: {}", log_line(error));
    ExitCode::FAILURE
}

fn with_config(file: Option<&Path>, body: impl FnOnce(&Config) -> ExitCode) -> ExitCode {
    match config::load(file, &config::ProcessEnvironment) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("spacebot: {warning}");
            }
            body(&loaded.config)
        }
        Err(errors) => {
            for error in errors {
                eprintln!("{}", log_line(&error));
            }
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn run(config: &Config, file: Option<PathBuf>, no_chat: bool) -> ExitCode {
    let chat =
        !no_chat && config.api.enabled && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    // In a chat the log would stand between the lines.
    logger::install(if chat { config.log_level.min(log::LevelFilter::Warn) } else { config.log_level });
    logger::hide(&config.secrets);
    // Before any thread exists, so that all of them inherit the mask and only `main` sees signals.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    if let Err(error) = signals.thread_block() {
        eprintln!("spacebot: signals cannot be blocked: {error}");
        return ExitCode::FAILURE;
    }
    let daemon = match Daemon::start(config, Options { config: file, chat }) {
        Ok(daemon) => daemon,
        Err(error) => return failed(&error),
    };
    announce(config);
    if chat && let Err(error) = start_chat(config) {
        log::warn!("no chat: {error}");
    }
    if sd_notify::notify(&[sd_notify::NotifyState::Ready]).is_err() {
        log::warn!("systemd was not told that the daemon is ready");
    }
    loop {
        match signals.wait() {
            // With a chat it means that the terminal has gone.
            Ok(Signal::SIGHUP) if !chat => daemon.reload(),
            Ok(signal) => break log::info!("{signal}: stopping"),
            Err(error) => break log::error!("waiting for a signal failed, stopping: {error}"),
        }
    }
    sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok(); // not under systemd: nobody to tell
    if daemon.stop() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The lines that a person at the terminal needs first.
fn announce(config: &Config) {
    let mut lines = vec![format!("data folder: {}", config.data_folder.display())];
    lines.push(match &config.file {
        Some(file) => format!("config:      {}", file.display()),
        None => "config:      built-in defaults".to_owned(),
    });
    if config.webhook.enabled {
        lines.push(format!("webhook:     http://{}:{}", config.webhook.bind, config.webhook.port));
    }
    if config.api.enabled {
        lines.push(format!("api:         http://{}:{}/api", config.api.bind, config.api.port));
    }
    for irc in &config.irc {
        lines.push(format!("irc:         {}:{} as {}", irc.server, irc.port, irc.nick));
    }
    for agent in &config.agents {
        let model = &agent.routing.channel;
        let model = if model == config::OFFLINE_MODEL { "offline responder" } else { model };
        lines.push(format!("agent:       {}, model {model}", agent.id));
    }
    let text = lines.join("\n") + "\n";
    // Nobody reads it: no reason not to work.
    std::io::stdout().lock().write_all(text.as_bytes()).ok();
}

/// The chat of `make run`; its end is the end of the daemon.
fn start_chat(config: &Config) -> Result<(), StartError> {
    let chat = Chat::new(&config.api, None, "terminal").map_err(|error| StartError::of("chat", &error))?;
    let body = move || {
        if let Err(error) = chat.interactive(std::io::stdin().lock(), true) {
            eprintln!("spacebot: {}", log_line(&error));
        }
        if let Err(error) = kill(Pid::this(), Signal::SIGTERM) {
            log::error!("the daemon could not be stopped: {error}");
        }
    };
    thread::spawn("chat", body).map(drop).map_err(|error| StartError::io("chat thread", &error))
}
