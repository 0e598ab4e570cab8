//! How a command is walled in: bubblewrap with a writable workspace, a read-only system, nothing of
//! the daemon's data, its own PID namespace, no network unless asked for, and a fresh environment.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::OnceLock;

use super::{Command, ExecError};
use crate::config::{SandboxConfig, SandboxMode};

/// Read-only in the sandbox, where they exist.
const SYSTEM_FOLDERS: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix"];
/// Where the operator's config may be.
const CONFIG_FOLDER: &str = "/etc/spacebot";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variables that change what a program loads or runs; a command may not set them.
const BLOCKED_VARIABLES: [&str; 13] = [
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "DYLD_INSERT_LIBRARIES",
    "DYLD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "NODE_OPTIONS",
    "RUBYOPT",
    "PERL5OPT",
    "PERL5LIB",
    "BASH_ENV",
    "ENV",
];

/// The walls of one agent.
pub struct Sandbox {
    config: SandboxConfig,
    workspace: PathBuf,
    data_folder: PathBuf,
    works: OnceLock<Result<Walls, String>>,
}

/// How much of the wall this machine allows; the first set that works is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Walls {
    /// A namespace for shared memory of their own. A daemon in a unit with PrivateIPC has one already.
    ipc: bool,
    /// A fresh /proc. Where a daemon that is itself walled in may not mount one, there is none, rather
    /// than the outer one.
    proc: bool,
}

const WALLS: [Walls; 4] = [
    Walls { ipc: true, proc: true },
    Walls { ipc: false, proc: true },
    Walls { ipc: true, proc: false },
    Walls { ipc: false, proc: false },
];

impl Sandbox {
    /// `data_folder` is what commands must not see, `workspace` the part of it that they may.
    pub fn new(config: &SandboxConfig, workspace: &Path, data_folder: &Path) -> Self {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Self {
            config: config.clone(),
            workspace: real(workspace),
            data_folder: real(data_folder),
            works: OnceLock::new(),
        }
    }

    pub(super) fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Why no command can run, if so. The first call tries bubblewrap out.
    ///
    /// # Errors
    /// [`ExecError::Unavailable`] with the reason.
    pub fn check(&self) -> Result<(), ExecError> {
        if self.config.mode == SandboxMode::Disabled {
            return Ok(());
        }
        if let Some(path) = self.config.writable_paths.iter().find(|path| self.data_folder.starts_with(path))
        {
            return Err(ExecError::Unavailable(format!(
                "sandbox.writable_paths: {} holds the daemon's own data",
                path.display()
            )));
        }
        self.tried().map(drop)
    }

    fn tried(&self) -> Result<Walls, ExecError> {
        let tried = || {
            let first = self.try_out(WALLS[0]);
            WALLS[1..].iter().fold(first, |outcome, walls| {
                outcome.or_else(|error| self.try_out(*walls).map_err(|next| format!("{error} | {next}")))
            })
        };
        self.works.get_or_init(tried).clone().map_err(ExecError::Unavailable)
    }

    fn try_out(&self, walls: Walls) -> Result<Walls, String> {
        let mut process = self.walls(&self.workspace, &[], walls);
        process
            .args(["/bin/sh", "-c", "exit 0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let output = process.output().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "bubblewrap (bwrap) is not installed".to_owned(),
            _ => format!("bubblewrap did not start: {error}"),
        })?;
        if output.status.success() {
            return Ok(walls);
        }
        Err(format!(
            "bubblewrap does not work here: {}",
            crate::text::one_line(&String::from_utf8_lossy(&output.stderr), 300)
        ))
    }

    /// The process for a command, ready but for its pipes.
    pub(super) fn prepare(&self, command: &Command) -> Result<Process, ExecError> {
        self.check()?;
        let folder = self.folder(&command.folder)?;
        for (name, _) in &command.variables {
            if name.is_empty()
                || name.contains(['=', '\0'])
                || BLOCKED_VARIABLES.iter().any(|blocked| blocked.eq_ignore_ascii_case(name))
            {
                return Err(ExecError::Refused(format!("the variable {name:?} may not be set")));
            }
        }
        let variables = self.environment(&command.variables);
        let mut process = match self.config.mode {
            SandboxMode::Enabled => self.walls(&folder, &variables, self.tried()?),
            SandboxMode::Disabled => {
                let mut process = Process::new("/usr/bin/env");
                process.current_dir(&folder).env_clear().envs(variables);
                process
            }
        };
        process.args(["/bin/sh", "-c", &command.shell]);
        Ok(process)
    }

    /// A folder of the workspace or of `writable_paths`.
    fn folder(&self, wanted: &Path) -> Result<PathBuf, ExecError> {
        let path = self.workspace.join(wanted);
        let real = path
            .canonicalize()
            .map_err(|error| ExecError::Refused(format!("{}: {error}", wanted.display())))?;
        let roots = std::iter::once(&self.workspace).chain(&self.config.writable_paths);
        if real.is_dir() && roots.into_iter().any(|root| real.starts_with(root)) {
            return Ok(real);
        }
        Err(ExecError::Refused(format!("{} is no folder of the workspace", wanted.display())))
    }

    fn environment(&self, own: &[(String, String)]) -> Vec<(String, String)> {
        let home = self.workspace.to_string_lossy().into_owned();
        let fixed = [
            ("PATH", PATH),
            ("HOME", &home),
            ("TMPDIR", "/tmp"),
            ("CI", "true"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("LANG", "C.UTF-8"),
            ("TERM", "dumb"),
            ("USER", "spacebot"),
        ];
        let mut variables: Vec<_> = fixed.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for name in &self.config.passthrough_env {
            variables.extend(std::env::var(name).ok().map(|value| (name.clone(), value)));
        }
        variables.extend(own.iter().cloned());
        variables
    }

    /// bwrap with everything up to the command itself.
    fn walls(&self, folder: &Path, variables: &[(String, String)], walls: Walls) -> Process {
        let mut process = Process::new("bwrap");
        process.args([
            "--unshare-user-try",
            "--unshare-pid",
            "--unshare-uts",
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
            "--clearenv",
        ]);
        if walls.ipc {
            process.arg("--unshare-ipc");
        }
        if !self.config.network {
            process.arg("--unshare-net");
        }
        for system in SYSTEM_FOLDERS {
            process.args(["--ro-bind-try", system, system]);
        }
        if walls.proc {
            process.args(["--proc", "/proc"]);
        } else {
            process.args(["--dir", "/proc"]);
        }
        process.args(["--dev", "/dev", "--tmpfs", "/tmp"]);
        if Path::new(CONFIG_FOLDER).is_dir() {
            process.args(["--tmpfs", CONFIG_FOLDER]);
        }
        if SYSTEM_FOLDERS.iter().any(|system| self.data_folder.starts_with(system)) {
            process.arg("--tmpfs").arg(&self.data_folder);
        }
        for path in self.config.writable_paths.iter().chain([&self.workspace]) {
            process.arg("--bind").arg(path).arg(path);
        }
        for (name, value) in variables {
            process.arg("--setenv").arg(name).arg(value);
        }
        process.arg("--chdir").arg(folder).arg("--");
        // bwrap itself is found by our PATH and needs nothing else of our environment.
        process.env_clear().env("PATH", PATH);
        process
    }
}
