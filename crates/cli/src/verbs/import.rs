//! Making machines of what others have defined.

use dormouse_api_types::{ImportReport, ImportRequest, routes};

use super::print::Printer;
use crate::args::Libvirt;
use crate::client::{Client, Error};
use crate::exit::{self, Code};
use crate::render;

pub(super) async fn libvirt(client: &Client, to: &Printer, args: &Libvirt) -> anyhow::Result<Code> {
    if args.list || (args.domains.is_empty() && !args.all) {
        return list(client, to, args).await;
    }
    let request = ImportRequest {
        uri: uri(args),
        names: args.domains.clone(),
        all: args.all,
        machine: args.machine.as_ref().map(ToString::to_string),
        set: args.set.clone(),
        dry_run: args.dry_run,
    };
    let answer = client.post(routes::IMPORT_LIBVIRT, &request).await?;
    to.answer(&answer, if args.dry_run { render::rehearsed } else { render::imported })?;
    let report: ImportReport = answer.read()?;
    let mut code = Code::Ok;
    for domain in report.domains {
        if let Some(problem) = domain.problem {
            let error = Error::Problem(Box::new(problem));
            code = code.or(exit::report(Some(&domain.domain), &error.into()));
        }
    }
    Ok(code)
}

/// One that cannot be imported is no error in a list.
async fn list(client: &Client, to: &Printer, args: &Libvirt) -> anyhow::Result<Code> {
    let request = ImportRequest {
        uri: uri(args),
        all: true,
        dry_run: true,
        set: args.set.clone(),
        ..ImportRequest::default()
    };
    let answer = client.post(routes::IMPORT_LIBVIRT, &request).await?;
    to.answer(&answer, render::importable)?;
    Ok(Code::Ok)
}

/// An empty one, as of a variable that is set to nothing, is none.
fn uri(args: &Libvirt) -> Option<String> {
    args.uri.clone().filter(|uri| !uri.is_empty())
}
