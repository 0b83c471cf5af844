//! `dormouse-lab sweep [--kept]`: removes what the labs of dead processes left behind.
//! `dormouse-lab libvirt`: leaves a lab with libvirtd and a running domain, and says how to use it.
//! `dormouse-lab remove LAB`: removes such a lab.
//! `dormouse-lab reap COMMAND...`: runs a command and reaps what it leaves behind.
#![forbid(unsafe_code)]

use dormouse_lab::{Daemon, Domain, Error, Guest, Lab, Libvirtd, Result, guest::Image, reap};
use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let done = match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["sweep"] => sweep(false),
        ["sweep", "--kept"] => sweep(true),
        ["libvirt"] => libvirt(),
        ["remove", id] => Lab::remove(id).map(|()| ExitCode::SUCCESS),
        ["reap", program, ..] => reap(program, args.get(2..).unwrap_or_default()),
        _ => {
            eprintln!("usage: dormouse-lab sweep [--kept] | libvirt | remove LAB | reap COMMAND...");
            Ok(ExitCode::from(2))
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("dormouse-lab: {error}");
        ExitCode::FAILURE
    })
}

fn sweep(kept: bool) -> Result<ExitCode> {
    Lab::sweep(kept)?.iter().for_each(|id| println!("removed {id}"));
    Ok(ExitCode::SUCCESS)
}

fn libvirt() -> Result<ExitCode> {
    let (mut lab, image) = (Lab::new("hand")?, Image::build()?);
    let libvirtd = Libvirtd::start(&lab)?;
    let domain = Domain::new(Guest::new("web", 2)).agent();
    libvirtd.boot(&lab, &image, &domain)?;
    let daemon = match Daemon::start(&lab) {
        Ok(daemon) => Some(daemon),
        // Not built.
        Err(Error::Setup(why)) => {
            eprintln!("dormouse-lab: no daemon: {why}");
            None
        }
        Err(other) => return Err(other),
    };
    lab.keep()?;
    let (switch, client) = (lab.switch().name(), lab.client_namespace().name());
    println!("export LIBVIRT_DEFAULT_URI='{}'", libvirtd.uri());
    println!(
        "virsh list --all                       # domain web, 10.9.0.2, which answers HTTP, ssh and more"
    );
    println!("ip netns exec {client} ping -c1 10.9.0.2");
    if let Some(daemon) = daemon {
        let (programs, socket) = (daemon.programs().display(), daemon.socket());
        println!("export DORMOUSE_SOCKET={}", socket.display());
        println!("ip netns exec {switch} {programs}/dormouse ls");
        println!("{programs}/dormouse import libvirt web --uri '{}'", libvirtd.uri());
        println!("less {}", daemon.log_path().display());
        daemon.detach();
    }
    println!("dormouse-lab remove {}", lab.id());
    libvirtd.detach();
    Ok(ExitCode::SUCCESS)
}
