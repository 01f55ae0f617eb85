//! How the members stand, as etcd says: the record, who lives, and what members have told of themselves in a change.

use crate::commands::Output;
use crate::fatal::Fatal;
use crate::out;
use isonomy_control::id::{ChangeId, Incarnation};
use isonomy_control::mark::Marks;
use isonomy_control::plan::{activate, promote};
use isonomy_control::record::{Member, Record, Stage};
use isonomy_control::store::{Listing, Store, Stored};
use isonomy_control::{Error, Presence, describe};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;

/// How the members stand.
pub(super) struct Standing {
    pub(super) record: Record,
    /// The revision that wrote the record; 0 before it is written.
    revision: i64,
    alive: Vec<Presence>,
    marks: Marks,
}

impl Standing {
    /// A record of which nothing else is known.
    pub(super) fn of(record: Record) -> Standing {
        Standing { record, revision: 0, alive: Vec::new(), marks: Marks::default() }
    }

    /// What etcd has now.
    pub(super) async fn read(store: &mut Store) -> Result<Standing, Error> {
        let Listing { record, alive, marks, .. } = store.list().await?;
        let Stored { record, revision } = record?;
        Ok(Standing { record, revision, alive, marks })
    }

    /// The same members under another record.
    pub(super) fn under(self, record: Record) -> Standing {
        Standing { record, ..self }
    }

    /// The record as it lies in etcd.
    pub(super) fn stored(&self) -> Stored {
        Stored { record: self.record.clone(), revision: self.revision }
    }

    /// The data directories of those who live.
    pub(super) fn living(&self) -> BTreeSet<Incarnation> {
        self.alive.iter().map(|presence| presence.incarnation).collect()
    }

    /// The data directories of those who are close in a change.
    pub(super) fn close(&self, change: ChangeId) -> BTreeSet<Incarnation> {
        self.marks.close(change)
    }

    /// The sign of life of a member. Another directory than the one that has taken its place gives none.
    pub(super) fn presence_of(&self, member: &Member) -> Option<&Presence> {
        let is_its =
            |it: &&Presence| it.id == member.id && member.incarnation.is_none_or(|own| own == it.incarnation);
        self.alive.iter().find(is_its)
    }

    /// What the change waits for, if one is under way.
    pub(super) fn waits_for(&self) -> Option<String> {
        let (change, stage) = self.record.change()?;
        let next = match stage {
            Stage::Learning | Stage::Held => promote(&self.record, &self.close(change), &self.living()),
            Stage::Sealing => activate(&self.record, &self.marks.holders(change)),
        };
        Some(match (next, stage) {
            (Err(not_yet), _) => not_yet.to_string(),
            (Ok(_), Stage::Held) => "all is ready; `isonomy member promote` lets the change go on".into(),
            (Ok(_), Stage::Learning | Stage::Sealing) => "all is ready, and any member goes on".into(),
        })
    }

    pub(super) fn print(&self, output: Output) -> Result<(), Fatal> {
        match output {
            Output::Json => out::print(self.to_json()),
            Output::Table => out::print(self.to_table()),
        }
    }

    fn to_table(&self) -> String {
        let mut text = describe(&self.record);
        for member in &self.record.membership.members {
            if let Some(Presence { address, .. }) = self.presence_of(member) {
                writeln!(text, "member {} lives at {address}", member.id).expect(WRITTEN);
            }
        }
        if let Some((change, stage)) = self.record.change() {
            let (close, holders) = (self.close(change), self.marks.holders(change));
            let close = self.ids(|it| close.contains(&it));
            let holders = self.ids(|it| holders.contains_key(&it));
            writeln!(text, "change {change}, {stage}; close: {close}; hold the state: {holders}")
                .expect(WRITTEN);
            for member in self.record.learners() {
                writeln!(text, "new member {}", self.learner(member)).expect(WRITTEN);
            }
            writeln!(text, "waits: {}", self.waits_for().unwrap_or_default()).expect(WRITTEN);
        }
        text
    }

    /// How a new member stands, and what to do for it.
    pub(super) fn learner(&self, member: &Member) -> String {
        let id = member.id;
        match (member.incarnation, self.presence_of(member)) {
            (None, _) => format!(
                "{id} has not started; start it with the name of the cluster, the table [etcd] and an empty \
                 data_dir: isonomy serve --replica {id}"
            ),
            (Some(_), None) => format!("{id} gives no sign of life; start it again, with its data directory"),
            (Some(_), Some(presence)) => format!("{id} lives at {}", presence.address),
        }
    }

    /// The members of the next epoch whose data directory is in a set.
    fn ids(&self, is_in: impl Fn(Incarnation) -> bool) -> String {
        let all = self.record.changing_to().map_or(&[][..], |to| &to.members);
        let those = all.iter().filter(|member| member.incarnation.is_some_and(&is_in));
        let ids: Vec<_> = those.map(|member| member.id.to_string()).collect();
        if ids.is_empty() { "none".into() } else { ids.join(", ") }
    }

    fn to_json(&self) -> Value {
        let record = &self.record;
        json!({
            "cluster": record.cluster,
            "cluster_id": record.cluster_id.to_string(),
            "epoch": record.epoch,
            "record": record.record.to_string(),
            "shards": record.shards,
            "f": record.membership.f,
            "e": record.membership.e,
            "members": record.membership.members.iter().map(|it| self.member(it)).collect::<Vec<_>>(),
            "change": self.change(),
        })
    }

    fn member(&self, member: &Member) -> Value {
        let presence = self.presence_of(member);
        json!({
            "id": member.id.0,
            "incarnation": member.incarnation.map(|it| it.to_string()),
            "address": member.address.to_string(),
            "lives": presence.is_some(),
            "lives_at": presence.map(|presence| presence.address.to_string()),
        })
    }

    fn change(&self) -> Option<Value> {
        let ((change, stage), to) = (self.record.change()?, self.record.changing_to()?);
        let (close, holders) = (self.close(change), self.marks.holders(change));
        let member = |member: &Member| {
            let mut value = self.member(member);
            value["is_new"] = self.record.membership.is_new(member).into();
            value["is_close"] = member.incarnation.is_some_and(|it| close.contains(&it)).into();
            value["holds_state"] = member.incarnation.is_some_and(|it| holders.contains_key(&it)).into();
            value
        };
        Some(json!({
            "id": change.to_string(),
            "stage": stage.to_string(),
            "f": to.f,
            "e": to.e,
            "members": to.members.iter().map(member).collect::<Vec<_>>(),
            "waits_for": self.waits_for(),
        }))
    }
}

/// Why writing into a text does not fail.
const WRITTEN: &str = "a text takes what is written into it";
