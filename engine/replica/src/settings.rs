//! `isonomy settings`: the settings of a cluster whose members are named in etcd.

use crate::commands::{Output, block_on};
use crate::config::etcd_of;
use crate::fatal::Fatal;
use crate::member::ClusterArgs;
use crate::out;
use anyhow::anyhow;
use clap::{Args, Subcommand};
use isonomy_control::store::{Store, Swapped, Tuned};
use isonomy_control::tuning::{Chosen, Name, Why, Word};
use isonomy_doors::status::tuning_to_json;
use serde_json::{Value, json};
use std::sync::Arc;

/// `isonomy settings`
#[derive(Args, Debug)]
pub(crate) struct SettingsArgs {
    #[command(subcommand)]
    command: SettingsCommand,
}

#[derive(Subcommand, Debug)]
enum SettingsCommand {
    /// Show all settings, and whether a member says that a fast quorum cannot be formed
    Get(GetArgs),
    /// Change settings; all replicas follow while they run
    Set(SetArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy settings get --etcd-endpoints http://etcd1:2379 --cluster orders")]
struct GetArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The format in which the settings are printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy settings set --etcd-endpoints http://etcd1:2379 --cluster orders path=slow window=16

The value `default` takes a choice back.")]
struct SetArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The changes, which are made together
    #[arg(required = true, value_name = "NAME=VALUE")]
    changes: Vec<String>,
    /// Only show what the settings would be
    #[arg(long)]
    dry_run: bool,
    /// The format in which the settings are printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) fn run(args: SettingsArgs) -> Result<(), Fatal> {
    match args.command {
        SettingsCommand::Get(args) => get(args),
        SettingsCommand::Set(args) => set(args),
    }
}

fn store(cluster: ClusterArgs) -> Result<Store, Fatal> {
    let ClusterArgs { config, cluster, etcd } = cluster;
    let (name, settings) = etcd_of(config.as_deref(), cluster, etcd)?;
    Store::new(Arc::new(settings), &name).map_err(crate::fatal::failed)
}

fn get(args: GetArgs) -> Result<(), Fatal> {
    let GetArgs { cluster, output } = args;
    let mut store = store(cluster)?;
    block_on(async move {
        // Settings under a prefix without a cluster would be a mistake about the prefix.
        store.get().await?;
        let Tuned { settings, word, .. } = store.tuned().await?;
        Ok(print(output, &settings.value?.unwrap_or_default(), word.value?.as_ref())?)
    })
}

fn set(args: SetArgs) -> Result<(), Fatal> {
    let SetArgs { cluster, changes, dry_run, output } = args;
    let mut store = store(cluster)?;
    block_on(async move {
        store.get().await?;
        let Tuned { settings, word, .. } = store.tuned().await?;
        let next = settings.value?.unwrap_or_default().changed(&changes)?;
        if !dry_run && store.choose(settings.revision, &next).await? == Swapped::Moved {
            return Err(anyhow!(
                "somebody else has changed the settings at the same time; nothing was changed. Look at them \
                 (`isonomy settings get`), and set yours again"
            ));
        }
        Ok(print(output, &next, word.value.ok().flatten().as_ref())?)
    })
}

fn print(output: Output, chosen: &Chosen, word: Option<&Word>) -> Result<(), Fatal> {
    let values = tuning_to_json(&chosen.tuning());
    match output {
        Output::Json => {
            let chosen: Vec<_> =
                Name::ALL.iter().filter(|name| chosen.has(**name)).map(|name| name.text()).collect();
            let word = word.map(|word| json!({"by": word.by.0, "why": why(word), "since_ms": word.since_ms}));
            out::print(json!({"settings": values, "chosen": chosen, "slow": word}))
        }
        Output::Table => out::print(to_table(chosen, &values, word)),
    }
}

fn to_table(chosen: &Chosen, values: &Value, word: Option<&Word>) -> String {
    let line = |name: &Name| {
        let note = if chosen.has(*name) { "" } else { "  (default)" };
        let value = &values[name.text()];
        format!("{:<14}{}{note}", name.text(), value.as_str().map_or_else(|| value.to_string(), String::from))
    };
    let mut lines: Vec<String> = Name::ALL.iter().map(line).collect();
    if let Some(word) = word {
        lines.push(format!(
            "member {} says that a fast quorum cannot be formed ({}); replicas with path auto do not wait for one",
            word.by,
            why(word)
        ));
    }
    lines.join("\n")
}

fn why(word: &Word) -> &'static str {
    match word.why {
        Why::Unreached => "unreached",
        Why::InVain => "in_vain",
    }
}
