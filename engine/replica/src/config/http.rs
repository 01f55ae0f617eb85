//! Where this replica answers HTTP: the table `[http]`.

use super::bad;
use crate::fatal::Fatal;
use isonomy_wire::client::parse_address;
use serde::Deserialize;

/// The table `[http]` of the configuration file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpFile {
    listen: Option<String>,
}

/// Where to listen; the flag wins over the file.
pub(super) fn join(flag: Option<String>, file: HttpFile) -> Result<Option<String>, Fatal> {
    let Some(listen) = flag.or(file.listen) else { return Ok(None) };
    parse_address(&listen)
        .map_err(|_| bad(format!("http: `listen` is '{listen}'; give HOST:PORT, such as 127.0.0.1:8080")))?;
    Ok(Some(listen))
}
