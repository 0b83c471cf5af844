//! `dormoused`: reads its configuration, then runs the service until it is told to end.
#![forbid(unsafe_code)]

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::Parser;
use dormouse_daemon::{
    api,
    chain::chain,
    config::{self, Config},
    fault::{self, Fault},
    service,
};
use tracing_subscriber::EnvFilter;

/// Exit status for what only a change of the configuration or the command line puts right.
const MISCONFIGURED: u8 = 2;

/// Puts idle virtual machines to sleep, stands in for them, and wakes them on the first packet.
#[derive(Debug, Parser)]
#[command(name = "dormoused", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,

    /// Check the configuration file, say what is wrong with it, and end.
    #[arg(long)]
    check_config: bool,

    /// Print the API's `OpenAPI` document, and end.
    #[arg(long, hide = true)]
    print_openapi: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.print_openapi {
        return print_openapi();
    }
    let (config, fault) = match read(&arguments) {
        Ok(read) => read,
        Err(why) => return complain(&why, MISCONFIGURED),
    };
    if arguments.check_config {
        return ExitCode::SUCCESS;
    }
    start_logging(&config);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}"), 1),
    };
    match runtime.block_on(service::run(config, fault)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn read(arguments: &Arguments) -> Result<(Config, Fault), String> {
    let config = Config::read(&arguments.config).map_err(|error| chain(&error))?;
    let fault = std::env::var(fault::VARIABLE).unwrap_or_default();
    let fault = Fault::parse(&fault).map_err(|error| chain(&error))?;
    Ok((config, fault))
}

/// To stderr, which under systemd is the journal; that has the time already.
fn start_logging(config: &Config) {
    let filter = EnvFilter::try_new(&config.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        logging.without_time().with_ansi(false).init();
    } else {
        logging.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
}

fn print_openapi() -> ExitCode {
    let printed = api::openapi_json()
        .map_err(|error| error.to_string())
        .and_then(|text| std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string()));
    printed.map_or_else(|why| complain(&why, 1), |()| ExitCode::SUCCESS)
}

fn complain(why: &str, status: u8) -> ExitCode {
    // Nothing is left to do if stderr is closed.
    let _ = writeln!(std::io::stderr(), "dormoused: {why}");
    ExitCode::from(status)
}
