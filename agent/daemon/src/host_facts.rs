//! Facts about the host for `Hostinfo`: kernel, distribution, name.

use std::fs;
use std::path::Path;

use tsrs_agent_core::wanted::HostFacts;

/// Version of this program, as clients and control see it.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Largest `/etc/os-release` that is read.
const MAX_OS_RELEASE_LEN: usize = 64 << 10;

/// Reads the facts. What cannot be found out stays empty.
pub(crate) fn read() -> HostFacts {
    let name = nix::sys::utsname::uname().ok();
    let text = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        name.as_ref().map(|name| part(name).to_string_lossy().into_owned()).unwrap_or_default()
    };
    let release = crate::store::read(Path::new("/etc/os-release"), MAX_OS_RELEASE_LEN).ok().flatten();
    let release = release.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let field = |key: &str| os_release_field(&release, key).unwrap_or_default();
    HostFacts {
        version: format!("{VERSION}-tsrs"),
        hostname: text(nix::sys::utsname::UtsName::nodename),
        os: "linux".to_owned(),
        os_version: text(nix::sys::utsname::UtsName::release),
        distro: field("ID"),
        distro_version: field("VERSION_ID"),
        distro_code_name: field("VERSION_CODENAME"),
        machine: text(nix::sys::utsname::UtsName::machine),
        container: Some(is_container()),
    }
}

fn os_release_field(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(line.trim().trim_matches('"').to_owned())
}

fn is_container() -> bool {
    let marks = ["/.dockerenv", "/run/.containerenv", "/dev/.lxc-boot-id"];
    let cgroup = fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
    marks.iter().any(|path| Path::new(path).exists())
        || ["docker", "lxc", "kubepods"].iter().any(|word| cgroup.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_with_and_without_quotes() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"\n";
        assert_eq!(os_release_field(text, "ID").as_deref(), Some("debian"));
        assert_eq!(os_release_field(text, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(os_release_field(text, "VERSION_CODENAME"), None);
    }

    #[test]
    fn the_program_names_itself_truthfully() {
        let facts = read();
        assert!(facts.version.ends_with("-tsrs"));
        assert_eq!(facts.os, "linux");
    }
}
