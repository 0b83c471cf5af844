//! What each verb asks the daemon, and prints.

mod commands;
mod holding;
mod import;
mod look;
mod print;
mod simulate;

use std::time::{SystemTime, UNIX_EPOCH};

use dormouse_types::{MachineName, Timestamp};
use futures::StreamExt as _;

use crate::args::{self, Cli, Verb};
use crate::client::Client;
use crate::exit::{self, Code};
use crate::generate;
use print::Printer;

/// How many machines are told at the same time.
const AT_ONCE: usize = 32;

/// Does what the command line says.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<Code> {
    let client = Client::new(&cli.socket);
    let to = Printer::new(cli.output);
    match cli.verb {
        Verb::Create(args) => commands::create(&client, &to, &args).await,
        Verb::Import(args::Import::Libvirt(args)) => import::libvirt(&client, &to, &args).await,
        Verb::Rm(args) => commands::remove(&client, &to, &args).await,
        Verb::Start(args) => commands::start(&client, &to, &args).await,
        Verb::Stop(args) => commands::stop(&client, &to, &args).await,
        Verb::Sleep(args) => commands::sleep(&client, &to, &args).await,
        Verb::Wake(args) => commands::wake(&client, &to, &args).await,
        Verb::Hold(args) if args.pid.is_some() || !args.command.is_empty() => {
            holding::hold(&client, &to, &args).await
        }
        Verb::Hold(args) => commands::hold(&client, &to, &args).await,
        Verb::Release(args) => commands::release(&client, &to, &args).await,
        Verb::Ls => look::list(&client, &to).await,
        Verb::Show(args) => look::show(&client, &to, &args).await,
        Verb::Why(args) => look::why(&client, &to, &args).await,
        Verb::WakeTest(args) => look::wake_test(&client, &to, &args).await,
        Verb::Events(args) => look::events(&client, &to, &args).await,
        Verb::Doctor(args) if args.names.is_empty() => look::doctor(&client, &to).await,
        Verb::Doctor(args) => look::doctor_of(&client, &to, &args.names).await,
        Verb::Usage(args) => look::usage(&client, &to, &args).await,
        Verb::Simulate(args) => simulate::run(&to, &args),
        Verb::Completions { shell } => {
            generate::completions(shell, &mut std::io::stdout()).map_err(anyhow::Error::from)?;
            Ok(Code::Ok)
        }
        Verb::Man { dir } => generate::man(&dir).map(|()| Code::Ok),
    }
}

/// Asks for all of the machines at once, and prints each answer in the order of the names.
/// One that fails is told and does not keep the others from being done.
async fn each<T, F>(
    names: &[MachineName],
    ask: impl Fn(MachineName) -> F,
    mut print: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<Code>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let about = names.len() > 1;
    let ask = |name: &MachineName| {
        let (name, asked) = (name.clone(), ask(name.clone()));
        async move { (name, asked.await) }
    };
    let mut answers = futures::stream::iter(names.iter().map(ask)).buffered(AT_ONCE);
    let mut code = Code::Ok;
    while let Some((name, answer)) = answers.next().await {
        code = code.or(match answer.and_then(&mut print) {
            Ok(()) => Code::Ok,
            Err(error) => exit::report(about.then_some(name.as_str()), &error),
        });
    }
    Ok(code)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::default() + since
}
