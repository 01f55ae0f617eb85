//! Follows the settings in etcd, and the word that a fast quorum cannot be formed, which it gives and takes back as this
//! member judges (law, section 4b).

use super::view::{Etcd, View};
use crate::backoff::Backoff;
use crate::cache::write_whole;
use crate::error::Error;
use crate::id::MemberId;
use crate::store::{Kept, Store, Tuned, TuningEvent};
use crate::tuning::{Chosen, Word};
use isonomy_wire::tuning::Loss;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch::{Receiver, Sender};
use tokio::time::sleep;

/// How often it is looked whether a member whose word stands still lives.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The file with the settings that were followed last, so that a replica has them that starts while etcd is down.
pub(super) struct SettingsFile(pub(super) PathBuf);

impl SettingsFile {
    /// The settings in the file. One that does not read costs the choices and no more, until etcd answers.
    pub(super) fn load(&self) -> Chosen {
        let bytes = match std::fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Chosen::default(),
            Err(error) => return self.lost(&error.to_string()),
        };
        Chosen::parse(&bytes).unwrap_or_else(|error| self.lost(&error.to_string()))
    }

    fn lost(&self, why: &str) -> Chosen {
        log::warn!(
            "{}: {why}; until etcd answers the settings are the defaults; remove the file, which is written anew",
            self.0.display()
        );
        Chosen::default()
    }

    fn keep(&self, chosen: &Chosen) {
        if let Err(error) = write_whole(&self.0, &chosen.to_json()) {
            log::warn!(
                "{}: {error}; a restart without etcd would have other settings; make room, and let this user write",
                self.0.display()
            );
        }
    }
}

pub(super) struct Tuner {
    store: Store,
    file: SettingsFile,
    views: Sender<View>,
    own: Option<MemberId>,
    judged: Receiver<Option<Loss>>,
    backoff: Backoff,
    word: Kept<Word>,
}

impl Tuner {
    pub(super) fn new(
        store: Store,
        file: SettingsFile,
        views: Sender<View>,
        own: Option<MemberId>,
        judged: Receiver<Option<Loss>>,
    ) -> Tuner {
        Tuner { store, file, views, own, judged, backoff: Backoff::new(), word: Kept::NONE }
    }

    /// Follows etcd for ever. While etcd is gone no word counts, and each replica judges for itself.
    pub(super) async fn run(&mut self) {
        loop {
            // The follower tells why etcd does not answer.
            let Err(_) = self.follow().await else { continue };
            self.views.send_modify(|view| view.tuning.is_reached = false);
            self.backoff.wait().await;
        }
    }

    async fn follow(&mut self) -> Result<(), Error> {
        let Tuned { settings, word, revision } = self.store.tuned().await?;
        self.on_settings(settings);
        self.on_word(word);
        self.views.send_modify(|view| view.tuning.is_reached = true);
        let mut watch = self.store.watch_tuning(revision + 1).await?;
        self.backoff = Backoff::new();
        loop {
            self.drive().await?;
            tokio::select! {
                events = self.store.next_tuning(&mut watch) => {
                    events?.into_iter().for_each(|event| self.on_event(event));
                }
                // The service that could say more ends this task, too.
                _ = self.judged.changed() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn on_event(&mut self, event: TuningEvent) {
        match event {
            TuningEvent::Settings(settings) => self.on_settings(settings),
            TuningEvent::Word(word) => self.on_word(word),
        }
    }

    /// Follows settings that can be used; others are told, and those before them stay.
    fn on_settings(&mut self, settings: Kept<Chosen>) {
        let chosen = settings.value.map(Option::unwrap_or_default);
        if let Ok(chosen) = &chosen
            && *chosen != self.views.borrow().tuning.chosen
        {
            self.file.keep(chosen);
        }
        self.views.send_modify(|view| match chosen {
            Ok(chosen) => (view.tuning.chosen, view.tuning.trouble) = (chosen, None),
            Err(why) => {
                if view.tuning.trouble.as_ref() != Some(&why) {
                    log::error!("the settings in etcd are not followed, those before them stay: {why}");
                }
                view.tuning.trouble = Some(why);
            }
        });
    }

    fn on_word(&mut self, word: Kept<Word>) {
        if let Err(why) = &word.value {
            log::error!("the key of the guardrail in etcd says nothing: {why}");
        }
        let standing = word.value.as_ref().ok().cloned().flatten();
        self.views.send_modify(|view| view.tuning.word = standing);
        self.word = word;
    }

    /// Gives the word of this member where none stands, or takes one back. Another member's word stands for as long as
    /// that member lives. Whatever comes of it, the watch tells.
    async fn drive(&mut self) -> Result<(), Error> {
        let Some(own) = self.own else { return Ok(()) };
        let judged = *self.judged.borrow_and_update();
        let standing = self.word.value.as_ref().ok().and_then(Option::as_ref).map(|word| word.by);
        let next = match (standing, judged) {
            (None, Some(loss)) => Some(Word::of(own, loss)),
            (Some(by), None) if by == own || self.is_silent(by) => None,
            (None, None) | (Some(_), _) => return Ok(()),
        };
        self.store.say(self.word.revision, next.as_ref()).await.map(drop)
    }

    /// Whether a member gives no sign of life, as far as etcd is reached.
    fn is_silent(&self, member: MemberId) -> bool {
        let view = self.views.borrow();
        matches!(view.etcd, Etcd::Reached) && view.alive.values().all(|presence| presence.id != member)
    }
}
