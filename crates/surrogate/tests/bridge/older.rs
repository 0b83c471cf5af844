//! All of these tests once more on Debian's own kernel, which tells VLANs apart, has Open vSwitch's
//! datapath, and attaches programs as kernels before 6.6 do; see lab/kernel.

use std::{path::Path, process::Command};

use crate::lab::KERNEL_LAB;

#[test]
fn the_suite_on_an_older_kernel() {
    if std::env::var_os(KERNEL_LAB).is_some() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../lab/kernel/run.sh");
    let mut command = Command::new(script);
    command.arg(std::env::current_exe().unwrap()).arg("--test-threads=1");
    // Linux 6.1 cannot describe to a packet socket what UDP leaves to be segmented (6.2 can): such
    // frames are lost there, and counted.
    command.args(["--skip", "offload::segments"]);
    // Emulated, it takes minutes; `lab/kernel/run.sh` with this binary runs them as well.
    command.args(["--skip", "ovs::a_stream"]);
    let out = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{said}");
    assert!(out.status.success(), "{}", out.status);
    assert!(said.contains("test result: ok."), "nothing was tested");
}
