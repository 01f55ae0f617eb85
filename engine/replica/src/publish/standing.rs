//! `isonomy publish status`: the topics, how far each shard is published, and what is wrong.

use super::overview::{Meant, Overview, WhereArgs};
use crate::commands::Output;
use crate::fatal::{Fatal, Reason};
use crate::out;
use clap::Args;
use isonomy_doors::status::publishing_to_json;
use isonomy_kafka::cursor::Cursor;
use isonomy_kafka::{Standing, TopicStanding};
use isonomy_wire::id::ShardId;
use isonomy_wire::message::ShardStatus;
use serde_json::{Value, json};

/// `isonomy publish status`
#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy publish status --config /etc/isonomy.toml

The command asks Kafka and all replicas. It ends with code 1 if anything is wrong, and says what to do. What Kafka has is shown even
if no replica answers.")]
pub(super) struct PublicationArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// The format in which the status is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// A shard, as Kafka has it.
struct ShardStanding {
    shard: ShardId,
    standing: Option<Standing>,
    trouble: Option<String>,
}

pub(super) fn run(args: PublicationArgs) -> Result<(), Fatal> {
    let overview = Overview::ask(args.place, Meant::Any)?;
    let topics = isonomy_kafka::topics(&overview.settings, overview.shards.into());
    let trouble = match &topics {
        Err(error) => Some(error.to_string()),
        Ok(topics) => topics.iter().find_map(|topic| topic.unfit.as_ref().map(ToString::to_string)),
    };
    let topics = topics.map(Vec::from).unwrap_or_default();
    let ask = |shard| stand(&overview, ShardId(shard), trouble.is_some());
    let shards: Vec<ShardStanding> = (0..overview.shards).map(ask).collect();
    match args.output {
        Output::Table => out::print(to_table(&overview, &topics, &shards))?,
        Output::Json => out::print(to_json(&overview, &topics, &shards, trouble.as_deref()))?,
    }
    let of_shard = |it: &ShardStanding| Some(format!("shard {}: {}", it.shard.0, it.trouble.as_ref()?));
    let mut wrong: Vec<String> = trouble.into_iter().chain(shards.iter().filter_map(of_shard)).collect();
    let silent =
        overview.replicas.iter().filter_map(|(address, answer)| Some((address, answer.as_ref().err()?)));
    wrong.extend(silent.map(|(address, error)| format!("no status of {address}: {error}")));
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Fatal::new(Reason::Failed, wrong.join("\n"))),
    }
}

/// Asks Kafka of a shard, unless its topics are of no use.
fn stand(overview: &Overview, shard: ShardId, is_unfit: bool) -> ShardStanding {
    if is_unfit {
        return ShardStanding { shard, standing: None, trouble: None };
    }
    let standing = match overview.standing(shard) {
        Err(error) => return ShardStanding { shard, standing: None, trouble: Some(error.to_string()) },
        Ok(standing) => standing,
    };
    let trouble = match overview.judge(shard, &standing) {
        Err(obstacle) => Some(obstacle.to_string()),
        Ok(_) if publishers(overview, shard).is_empty() => why_nobody_publishes(overview, shard),
        Ok(_) => None,
    };
    ShardStanding { shard, standing: Some(standing), trouble }
}

/// Why no replica publishes a shard; `None` if none answers.
fn why_nobody_publishes(overview: &Overview, shard: ShardId) -> Option<String> {
    overview.statuses(shard).next()?;
    let mut told = overview.statuses(shard).filter_map(|status| Some(&status.publishing.as_ref()?.trouble));
    let trouble = told.find(|trouble| !trouble.is_empty()).cloned();
    Some(trouble.unwrap_or_else(|| {
        "no replica publishes it now; look again in a minute, and check that all have the table [publish]"
            .to_owned()
    }))
}

/// The replicas that publish a shard.
fn publishers(overview: &Overview, shard: ShardId) -> Vec<u8> {
    let publishes = |status: &&ShardStatus| status.publishing.as_ref().is_some_and(|it| it.is_publisher);
    overview.statuses(shard).filter(publishes).map(|status| status.replica.0).collect()
}

fn to_table(overview: &Overview, topics: &[TopicStanding], shards: &[ShardStanding]) -> String {
    let mut lines = vec![format!("cluster {} at {}", overview.cluster, overview.settings.brokers)];
    lines.extend(topics.iter().map(topic_line));
    for ShardStanding { shard, standing, trouble } in shards {
        let at_kafka = match standing {
            None => "unknown at Kafka".to_owned(),
            Some(Standing { cursor: None, end, has_records, .. }) => {
                let holds = if *has_records { "with records" } else { "without a record" };
                format!("no cursor  partition {holds}, end {end}")
            }
            Some(Standing { cursor: Some(cursor), end, .. }) => {
                format!("{}  partition end {end}", cursor_text(cursor))
            }
        };
        lines.push(format!("shard {:<3} {at_kafka}", shard.0));
        for (address, answer) in &overview.replicas {
            let Ok((welcome, statuses)) = answer else { continue };
            let Some(status) = statuses.get(usize::from(shard.0)) else { continue };
            lines.push(match &status.publishing {
                None => format!("          {address} replica {} publishes nothing", welcome.replica),
                Some(it) => format!(
                    "          {address} replica {} {}  waiting {} bytes{}{}",
                    welcome.replica,
                    if it.is_publisher { "publishes" } else { "keeps" },
                    it.backlog_bytes,
                    it.kept_from
                        .map(|start| format!("  kept from barrier {}", start.barrier))
                        .unwrap_or_default(),
                    if it.trouble.is_empty() { String::new() } else { format!("  trouble: {}", it.trouble) },
                ),
            });
        }
        if let Some(trouble) = trouble {
            lines.push(format!("          NOT PUBLISHED: {trouble}"));
        }
    }
    lines.join("\n")
}

fn cursor_text(cursor: &Cursor) -> String {
    format!(
        "cursor of cluster {}, epoch {} {:?}, end {}, topic id {}",
        cursor.cluster, cursor.epoch.0, cursor.frontier, cursor.end, cursor.topic
    )
}

fn topic_line(standing: &TopicStanding) -> String {
    let TopicStanding { topic, facts, unfit } = standing;
    let what = match facts {
        None => "missing".to_owned(),
        Some(facts) => format!(
            "id {}, {} partition(s), {} copies, min.insync.replicas {}",
            facts.id, facts.partitions, facts.replicas, facts.insync
        ),
    };
    match unfit {
        None => format!("topic {topic}: {what}; fit"),
        Some(unfit) => format!("topic {topic}: {what}; NOT FIT: {unfit}"),
    }
}

fn to_json(
    overview: &Overview,
    topics: &[TopicStanding],
    shards: &[ShardStanding],
    trouble: Option<&str>,
) -> Value {
    let topics = topics.iter().map(|TopicStanding { topic, facts, unfit }| {
        json!({
            "topic": topic,
            "id": facts.as_ref().map(|facts| facts.id.to_string()),
            "partitions": facts.as_ref().map(|facts| facts.partitions),
            "copies": facts.as_ref().map(|facts| facts.replicas),
            "insync_min": facts.as_ref().map(|facts| facts.insync),
            "unfit": unfit.as_ref().map(ToString::to_string),
        })
    });
    let shards = shards.iter().map(|ShardStanding { shard, standing, trouble }| {
        let replicas = overview.replicas.iter().filter_map(|(address, answer)| {
            let (welcome, statuses) = answer.as_ref().ok()?;
            let publishing = statuses.get(usize::from(shard.0))?.publishing.as_ref().map(publishing_to_json);
            Some(json!({"address": address, "replica": welcome.replica.0, "publishing": publishing}))
        });
        json!({
            "shard": shard.0,
            "cursor": standing.and_then(|it| it.cursor).as_ref().map(cursor_to_json),
            "end": standing.map(|it| it.end),
            "publishers": publishers(overview, *shard),
            "replicas": replicas.collect::<Vec<_>>(),
            "trouble": trouble,
        })
    });
    let silent = overview.replicas.iter().filter_map(|(address, answer)| {
        let error = answer.as_ref().err()?;
        Some(json!({"address": address, "error": error.to_string()}))
    });
    json!({
        "cluster": overview.cluster.to_string(),
        "brokers": overview.settings.brokers,
        "trouble": trouble,
        "topics": topics.collect::<Vec<_>>(),
        "shards": shards.collect::<Vec<_>>(),
        "silent": silent.collect::<Vec<_>>(),
    })
}

fn cursor_to_json(cursor: &Cursor) -> Value {
    json!({
        "cluster": cursor.cluster.to_string(),
        "epoch": cursor.epoch.0,
        "frontier": cursor.frontier.0,
        "end": cursor.end,
        "topic_id": cursor.topic.to_string(),
    })
}
