//! Can this host run guests by its processor?

use std::{
    fs::{self, File},
    sync::LazyLock,
};

use dormouse_machine::spec::Accel;

use super::args::Engine;

/// Chooses; `auto` takes KVM only where the processor shows `vmx` or `svm` too: a /dev/kvm may
/// open on a host that cannot run a guest.
pub(super) fn choose(wanted: Accel) -> Engine {
    match wanted {
        Accel::Kvm => Engine::Kvm,
        Accel::Tcg => Engine::Tcg,
        Accel::Auto if processor_can() && File::options().read(true).write(true).open("/dev/kvm").is_ok() => {
            Engine::Kvm
        }
        Accel::Auto => Engine::Tcg,
    }
}

/// Read once: on a host with many processors the file is long, and is made anew for each reader.
fn processor_can() -> bool {
    static CAN: LazyLock<bool> =
        LazyLock::new(|| fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| has_virtualisation(&text)));
    *CAN
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::has_virtualisation;

    #[test]
    fn only_a_flag_of_its_own_counts() {
        assert!(has_virtualisation("processor: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(!has_virtualisation("model name: svm\nflags\t\t: fpu svm_lock avx512_vmxx\n"));
    }
}
