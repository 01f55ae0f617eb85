//! The notation of hosts in addresses. An IPv6 address has colons of its own, so it has brackets before a port;
//! resolvers take it without brackets.

use core::net::Ipv6Addr;

/// The host without its brackets, if it has any.
pub fn bare_host(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// "host:port", with brackets where the host needs them.
pub fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether the text is a name or an address, without a port, a scheme or a path.
pub fn is_host(host: &str) -> bool {
    let (address, _zone) = host.split_once('%').unwrap_or((host, ""));
    let is_v6 = address.parse::<Ipv6Addr>().is_ok();
    let is_foreign = |letter: char| letter.is_control() || ":/[]@ ".contains(letter);
    !host.is_empty() && (is_v6 || !host.contains(is_foreign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_for_addresses_with_colons() {
        for (host, bare, text) in [
            ("[::1]", "::1", "[::1]:7400"),
            ("::1", "::1", "[::1]:7400"),
            ("db1.example", "db1.example", "db1.example:7400"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.1:7400"),
        ] {
            assert_eq!(bare_host(host), bare);
            assert_eq!(with_port(bare_host(host), 7400), text);
        }
    }

    #[test]
    fn a_host_has_nothing_around_it() {
        for host in ["::1", "fe80::1%eth0", "10.0.0.1", "db-1.example", "db_1"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "[::1", "10.0.0.1:7100", "http://db1", "a b", "::1:zz", "db1/", "me@db1", "db\n1"] {
            assert!(!is_host(host), "{host}");
        }
    }
}
