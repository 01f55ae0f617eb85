//! The names of the host. A name that the system does not tell is `None`.

use std::fs::read_to_string;

/// The name of the host.
pub fn name() -> Option<String> {
    line_of("/proc/sys/kernel/hostname")
}

/// The release of the kernel.
pub fn kernel() -> Option<String> {
    line_of("/proc/sys/kernel/osrelease")
}

/// The model of the first processor.
pub fn cpu_model() -> Option<String> {
    let cpus = read_to_string("/proc/cpuinfo").ok()?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map(|(_, model)| model.to_owned())
}

/// The load average of the last minute: how many threads ran or wanted to run.
pub fn load_average() -> Option<f64> {
    line_of("/proc/loadavg")?.split(' ').next()?.parse().ok()
}

fn line_of(path: &str) -> Option<String> {
    read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn names_are_those_that_uname_tells() {
        let uname = |flag| {
            let output = Command::new("uname").arg(flag).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
        };
        assert_eq!((name(), kernel()), (Some(uname("-n")), Some(uname("-r"))));
        assert!(load_average().is_some_and(|load| load >= 0.0));
    }
}
