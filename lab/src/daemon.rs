//! The daemon under test, and its command line.

use crate::{Error, Lab, Namespace, Output, Result, command, programs, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::de::DeserializeOwned;
use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A `dormoused` inside a lab's switch namespace. Dropping it kills it, as a crash would: its guests
/// live on until the lab is dropped.
#[derive(Debug)]
pub struct Daemon {
    namespace: Namespace,
    programs: PathBuf,
    dir: PathBuf,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Daemon {
    /// Starts the daemon and waits until it answers.
    ///
    /// # Errors
    ///
    /// If it is not built, ends early, or does not answer.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_with(lab, "", &[])
    }

    /// Starts the daemon with more lines of configuration and environment variables.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(lab: &Lab, config: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let mut daemon = Self {
            namespace: lab.switch().clone(),
            programs: programs::find("dormoused")?,
            dir: lab.dir().to_owned(),
            environment: Vec::new(),
            child: None,
        };
        daemon.configure(config)?;
        for (name, value) in environment {
            daemon.set_env(name, value);
        }
        daemon.restart()?;
        Ok(daemon)
    }

    /// Writes the configuration that the next start will read: the lab's paths, then `more`. No process
    /// stands by for a wake unless `more` says so: tests look for what a sleep leaves.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn configure(&self, more: &str) -> Result<()> {
        let standby = if more.contains("[standby]") { "" } else { "[standby]\nmemory = 0\n" };
        let text =
            format!("state_dir = {:?}\nsocket = {:?}\n{more}\n{standby}", self.state_dir(), self.socket());
        let path = self.config();
        fs::write(&path, text).map_err(Error::file("write", &path))
    }

    /// Sets an environment variable for the next start; an empty value takes it away.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.retain(|(n, _)| n != name);
        if !value.is_empty() {
            self.environment.push((name.into(), value.into()));
        }
    }

    /// Kills the daemon if it runs, starts it, waits until it answers; returns how long that took.
    ///
    /// # Errors
    ///
    /// If it ends early or does not answer.
    pub fn restart(&mut self) -> Result<Duration> {
        self.kill9()?;
        self.spawn()?;
        let socket = self.socket();
        let waited = wait_until("dormoused to answer", START_TIMEOUT, || {
            if self.has_ended()? {
                return Err(Error::Setup(format!("dormoused ended at start:\n{}", self.log_tail())));
            }
            Ok(answers(&socket))
        });
        waited.map_err(|e| match e {
            Error::Timeout { what, waited, .. } => {
                Error::Timeout { what, waited, detail: format!("; its log:\n{}", self.log_tail()) }
            }
            other => other,
        })
    }

    /// Starts the daemon without waiting for it.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        let path = self.log_path();
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(Error::file("open", &path))?;
        let errors = log.try_clone().map_err(Error::file("open", &path))?;
        let mut command = self.namespace.command(self.programs.join("dormoused"));
        command.arg("--config").arg(self.config());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C at the terminal is for the one who runs the lab.
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        self.child = Some(command.spawn().map_err(|source| command::cannot_run(&command, source))?);
        Ok(())
    }

    /// Kills the daemon as a crash would. Nothing happens if it does not run.
    ///
    /// # Errors
    ///
    /// If it cannot be killed.
    pub fn kill9(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let ended = child.kill().and_then(|()| child.wait());
        ended.map(drop).map_err(|source| Error::Run { program: "dormoused".into(), source })
    }

    /// Asks the daemon to end, and waits until it has.
    ///
    /// # Errors
    ///
    /// If it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        self.wait_end(START_TIMEOUT)
    }

    /// Waits until the daemon has ended by itself, as at a planted crash.
    ///
    /// # Errors
    ///
    /// If it does not end in time.
    pub fn wait_end(&mut self, timeout: Duration) -> Result<()> {
        wait_until("dormoused to end", timeout, || self.has_ended())?;
        self.child = None;
        Ok(())
    }

    /// Has its process ended?
    ///
    /// # Errors
    ///
    /// If it cannot be asked.
    pub fn has_ended(&mut self) -> Result<bool> {
        let Some(child) = &mut self.child else { return Ok(true) };
        let status = child.try_wait().map_err(|source| Error::Run { program: "dormoused".into(), source })?;
        Ok(status.is_some())
    }

    /// Its process, if it was started and not reaped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Lets it run on after this value is gone, for a lab that is kept.
    pub fn detach(mut self) {
        self.child = None;
    }

    /// The unix socket of its API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("dormoused.sock")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("dormoused.toml")
    }

    /// Where it keeps its state.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The directory with the built programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The file with all it printed, over all its starts.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("dormoused.log")
    }

    /// All it printed, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// A `dormouse` command that talks to this daemon, for the caller to run.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.namespace.command(self.programs.join("dormouse"));
        command.arg("--socket").arg(self.socket()).args(args);
        command
    }

    /// Runs `dormouse` to its end, whatever that is.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        command::output(&mut self.command(args))
    }

    /// Runs `dormouse`, which must succeed, and returns what it printed.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        command::stdout(&mut self.command(args))
    }

    /// Runs `dormouse -o json`, which must succeed, and reads what it printed.
    ///
    /// # Errors
    ///
    /// If it fails or prints something else.
    pub fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let text = self.run(&[&["-o", "json"], args].concat())?;
        serde_json::from_str(&text).map_err(|e| Error::Answer {
            from: format!("dormouse {}", args.join(" ")),
            answer: format!("{e}: {text}"),
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.kill9();
    }
}

/// Does anyone speak HTTP on this socket?
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"HTTP/")
    };
    ask().unwrap_or(false)
}
