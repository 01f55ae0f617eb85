//! Where this replica answers HTTP and gRPC: the tables `[http]` and `[grpc]`.

use super::bad;
use crate::fatal::Fatal;
use isonomy_wire::client::parse_address;
use serde::Deserialize;

/// The table of a door in the configuration file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DoorFile {
    listen: Option<String>,
}

/// Where to listen; the flag wins over the table of this name.
pub(super) fn join(
    table: &str,
    example: &str,
    flag: Option<String>,
    file: DoorFile,
) -> Result<Option<String>, Fatal> {
    let Some(listen) = flag.or(file.listen) else { return Ok(None) };
    parse_address(&listen)
        .map_err(|_| bad(format!("{table}: `listen` is '{listen}'; give HOST:PORT, such as {example}")))?;
    Ok(Some(listen))
}
