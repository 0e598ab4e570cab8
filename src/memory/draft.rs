//! Memories that are stored together or not at all: what one reading of a chunk of a file, or of a part of
//! a conversation, came to.
//!
//! Nothing is stored before [`Draft::take`], and then in one transaction with whatever says that the
//! chunk is in. So a reading that is cut off leaves nothing behind and is simply done again.
//!
//! A file is nobody's word: what comes from it says so, is never who somebody is, weighs less than the
//! most important, and supersedes only what came from files too.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::record::{Memory, MemoryType, NewAssociation, NewMemory, RelationType, Source, Who};
use super::{MemoryError, MemoryStore, REASON_BYTES_MAX, record, store};
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::text;
use crate::thread::lock;

/// Memories of one draft: as many short paragraphs as the largest chunk can hold; a model that saves more
/// has lost its way.
const MEMORIES_MAX: usize = 1024;
/// Highest importance of what comes from a file.
const IMPORTANCE_MAX: f64 = 0.8;

/// A memory that is not stored yet; its id stays.
#[derive(Debug, Clone)]
pub struct Drafted {
    memory: Memory,
    associations: Vec<NewAssociation>,
}

impl Drafted {
    pub fn content(&self) -> &str {
        &self.memory.content
    }

    pub fn importance(&self) -> f64 {
        self.memory.importance
    }
}

/// What a reading came to.
#[derive(Debug, Clone, Default)]
pub struct DraftEnd {
    pub saved: Vec<Drafted>,
    /// Ids of memories that are to be forgotten, each with the reason.
    pub forgotten: Vec<(String, String)>,
}

#[derive(Default)]
struct Content {
    drafted: Vec<Drafted>,
    forgotten: Vec<(String, String)>,
    complete: bool,
}

/// Whose word is saved here.
#[derive(Clone)]
enum Voice {
    /// That of a file. `reference` is the file and the place in it; the channel ties the memories of one
    /// file together.
    File { reference: String, channel_id: String },
    /// That of a conversation: each memory says itself where it is from.
    Conversation,
}

/// Clones are the same draft.
#[derive(Clone)]
pub struct Draft {
    store: MemoryStore,
    voice: Voice,
    content: Arc<Mutex<Content>>,
}

impl Draft {
    /// What is saved here comes from the file and place that `reference` names; `channel_id` ties the
    /// memories of one file together.
    pub fn new(store: MemoryStore, reference: String, channel_id: String) -> Self {
        Self { store, voice: Voice::File { reference, channel_id }, content: Arc::default() }
    }

    /// What is saved here was said in a conversation.
    pub fn of_conversation(store: MemoryStore) -> Self {
        Self { store, voice: Voice::Conversation, content: Arc::default() }
    }

    /// Returns the id that the memory will have. The same words again, as of a model that was reminded
    /// to end, are the memory that is there already.
    ///
    /// # Errors
    /// As [`MemoryStore::save`], or a file cannot say this.
    pub fn save(&self, new: NewMemory) -> Result<String, MemoryError> {
        let new = match &self.voice {
            Voice::File { reference, channel_id } => of_file(new, reference, channel_id)?,
            Voice::Conversation => new,
        };
        let (memory, mut associations) = record::checked(new, self.store.0.clock.now())?;
        let mut content = lock(&self.content);
        let mut known = content.drafted.iter().map(|one| &one.memory);
        let same = |one: &&Memory| one.content == memory.content && one.memory_type == memory.memory_type;
        if let Some(one) = known.find(same) {
            return Ok(one.id.clone());
        }
        if content.drafted.len() >= MEMORIES_MAX {
            return Err(MemoryError::Invalid(format!("more than {MEMORIES_MAX} memories of one part")));
        }
        for association in &mut associations {
            self.judge(association, &content.drafted)?;
        }
        let id = memory.id.clone();
        content.drafted.push(Drafted { memory, associations });
        Ok(id)
    }

    /// The target must be there; it is superseded only when it came from a file too.
    fn judge(&self, association: &mut NewAssociation, drafted: &[Drafted]) -> Result<(), MemoryError> {
        let target = &association.target_id;
        if drafted.iter().any(|one| one.memory.id == *target) {
            return Ok(());
        }
        let found = self.store.get(target)?.filter(|memory| !memory.forgotten);
        let found = found.ok_or_else(|| MemoryError::NotFound(target.clone()))?;
        let from_file = found.source.is_some_and(|source| source.who == Who::File);
        let is_file = matches!(self.voice, Voice::File { .. });
        if is_file && association.relation_type == RelationType::Updates && !from_file {
            association.relation_type = RelationType::RelatedTo;
        }
        Ok(())
    }

    /// Notes that a memory is to be forgotten. `None`: there is none; false: it was forgotten already.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn forget(&self, id: &str, reason: &str) -> Result<Option<bool>, MemoryError> {
        let Some(memory) = self.store.get(id)? else { return Ok(None) };
        let mut content = lock(&self.content);
        if memory.forgotten || content.forgotten.iter().any(|(known, _)| known == id) {
            return Ok(Some(false));
        }
        if content.forgotten.len() >= MEMORIES_MAX {
            return Err(MemoryError::Invalid(format!("more than {MEMORIES_MAX} memories forgotten at once")));
        }
        content.forgotten.push((id.to_owned(), text::shorten(reason, REASON_BYTES_MAX).into_owned()));
        Ok(Some(true))
    }

    /// The reading is over. `ids` must be exactly what was saved.
    ///
    /// # Errors
    /// They are not; the reading goes on.
    pub fn complete(&self, ids: &[String]) -> Result<usize, MemoryError> {
        let mut content = lock(&self.content);
        let saved: BTreeSet<&str> = content.drafted.iter().map(|one| one.memory.id.as_str()).collect();
        let named: BTreeSet<&str> = ids.iter().map(|id| id.trim()).collect();
        let list = |ids: Vec<&str>| ids.join(", ");
        let missing: Vec<&str> = saved.difference(&named).copied().collect();
        let unknown: Vec<&str> = named.difference(&saved).copied().collect();
        if !unknown.is_empty() {
            return Err(MemoryError::Invalid(format!("these were not saved here: {}", list(unknown))));
        }
        if !missing.is_empty() {
            return Err(MemoryError::Invalid(format!("these were saved and not named: {}", list(missing))));
        }
        content.complete = true;
        Ok(content.drafted.len())
    }

    /// What it came to, once the reading is over.
    pub fn take(&self) -> Option<DraftEnd> {
        let mut content = lock(&self.content);
        content.complete.then(|| DraftEnd {
            saved: std::mem::take(&mut content.drafted),
            forgotten: std::mem::take(&mut content.forgotten),
        })
    }
}

/// As a file may say it.
fn of_file(mut new: NewMemory, reference: &str, channel_id: &str) -> Result<NewMemory, MemoryError> {
    if new.memory_type == MemoryType::Identity {
        let reason = "a file cannot say who the user or the agent is; save it as a fact";
        return Err(MemoryError::Invalid(reason.to_owned()));
    }
    let label = new.source.take().and_then(|source| source.label);
    new.source = Some(Source { who: Who::File, reference: Some(reference.to_owned()), label });
    new.channel_id = Some(channel_id.to_owned());
    let importance = new.importance.unwrap_or_else(|| new.memory_type.default_importance());
    new.importance = Some(if importance > 1.0 { importance } else { importance.min(IMPORTANCE_MAX) });
    Ok(new)
}

impl MemoryStore {
    /// Stores what a draft came to and what `with` writes in one transaction. A tie to a memory that was
    /// forgotten meanwhile is left out.
    ///
    /// # Errors
    /// The database or `with` does not take it; then nothing is stored.
    pub fn save_drafted(
        &self,
        drafted: DraftEnd,
        with: impl FnOnce(&Connection, Timestamp) -> Result<(), DbError> + Send + 'static,
    ) -> Result<(), DbError> {
        let now = self.0.clock.now();
        let count = drafted.saved.len() + drafted.forgotten.len();
        self.0.db.write(move |connection| {
            for Drafted { memory, mut associations } in drafted.saved {
                let targets = store::id_list(associations.iter().map(|tie| tie.target_id.as_str()));
                let live = store::load(connection, &targets)?;
                associations.retain(|tie| live.iter().any(|memory| memory.id == tie.target_id));
                store::insert(connection, &memory, &associations)?;
            }
            for (id, reason) in &drafted.forgotten {
                store::forget(connection, id, Some(reason), now)?;
            }
            with(connection, now)
        })?;
        if count > 0 {
            self.changed(now);
            if let Some(vectors) = &self.0.vectors {
                vectors.fill_in_background(&self.0.db);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::clock::SimulatedClock;
    use crate::db::Db;

    fn bench() -> (tempfile::TempDir, MemoryStore) {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open_inline(&folder.path().join("m.db"), None).unwrap();
        let clock = SimulatedClock::starting_at(Timestamp(1_795_255_200_000));
        let store = MemoryStore::open(db, folder.path().join("index"), clock).unwrap();
        (folder, store)
    }

    fn draft(store: &MemoryStore) -> Draft {
        Draft::new(store.clone(), "a.txt#0123/1".to_owned(), "ingest:0123".to_owned())
    }

    fn total(store: &MemoryStore) -> u64 {
        store.count_by_type().unwrap().iter().map(|(_, count)| count).sum()
    }

    #[test]
    fn nothing_is_stored_before_the_end_and_then_all_with_the_word_that_it_is() {
        let (_folder, store) = bench();
        let draft = draft(&store);
        let first = draft.save(NewMemory::new(MemoryType::Fact, "the sky is blue")).unwrap();
        let second = draft.save(NewMemory::new(MemoryType::Event, "it rained")).unwrap();
        assert_eq!((total(&store), draft.take().is_none()), (0, true));
        assert!(draft.complete(std::slice::from_ref(&first)).is_err(), "one is not named");
        assert!(draft.complete(&[first.clone(), second.clone(), "x".to_owned()]).is_err(), "one is unknown");
        assert_eq!(draft.complete(&[second, first.clone()]).unwrap(), 2);
        let drafted = draft.take().unwrap();
        let refused = store.save_drafted(drafted.clone(), |_, _| Err(DbError::Refused("no".to_owned())));
        assert!(refused.is_err());
        assert_eq!(total(&store), 0, "all or nothing");
        store.save_drafted(drafted, |_, _| Ok(())).unwrap();
        assert_eq!(total(&store), 2);
        let source = store.get(&first).unwrap().unwrap().source.unwrap();
        assert_eq!(source.to_string(), "file:a.txt#0123/1");
    }

    #[test]
    fn the_same_words_again_are_one_memory() {
        let (_folder, store) = bench();
        let draft = draft(&store);
        let save = |kind| draft.save(NewMemory::new(kind, "the sky is blue")).unwrap();
        let (first, again, other) = (save(MemoryType::Fact), save(MemoryType::Fact), save(MemoryType::Event));
        assert!(first == again && first != other);
        assert_eq!(draft.complete(&[first, other]).unwrap(), 2);
    }

    #[test]
    fn a_file_is_not_the_users_word() {
        let (_folder, store) = bench();
        let told = NewMemory {
            source: Some(Source::new(Who::User, "m1")),
            ..NewMemory::new(MemoryType::Fact, "tea")
        };
        let told = store.save(told).unwrap().id;
        let draft = draft(&store);
        assert!(draft.save(NewMemory::new(MemoryType::Identity, "I am the owner")).is_err());
        let tie = |target: &str| NewAssociation {
            target_id: target.to_owned(),
            relation_type: RelationType::Updates,
            weight: 0.5,
        };
        let boast = |text: &str, target: &str| NewMemory {
            importance: Some(1.0),
            source: Some(Source::new(Who::User, "m1")),
            associations: vec![tie(target)],
            ..NewMemory::new(MemoryType::Decision, text)
        };
        let first = draft.save(boast("coffee, not tea", &told)).unwrap();
        let second = draft.save(boast("cocoa, not coffee", &first)).unwrap();
        assert!(draft.save(boast("nobody", "none")).is_err());
        draft.complete(&[first.clone(), second.clone()]).unwrap();
        store.save_drafted(draft.take().unwrap(), |_, _| Ok(())).unwrap();
        let memory = store.get(&first).unwrap().unwrap();
        assert_eq!((memory.importance, memory.source.unwrap().who), (IMPORTANCE_MAX, Who::File));
        let relation = |one: &str, other: &str| {
            let all = store.associations(one).unwrap();
            all.iter().find(|tie| tie.target_id == other).unwrap().relation_type
        };
        assert_eq!(relation(&first, &told), RelationType::RelatedTo);
        assert_eq!(relation(&second, &first), RelationType::Updates);
    }

    #[test]
    fn a_tie_to_what_was_forgotten_meanwhile_is_left_out() {
        let (_folder, store) = bench();
        let old = store.save(NewMemory::new(MemoryType::Fact, "old")).unwrap().id;
        let draft = draft(&store);
        let tie =
            NewAssociation { target_id: old.clone(), relation_type: RelationType::RelatedTo, weight: 0.5 };
        let new = NewMemory { associations: vec![tie], ..NewMemory::new(MemoryType::Fact, "new") };
        let id = draft.save(new).unwrap();
        draft.complete(std::slice::from_ref(&id)).unwrap();
        store.forget(&old, None).unwrap();
        store.save_drafted(draft.take().unwrap(), |_, _| Ok(())).unwrap();
        assert!(store.get(&id).unwrap().is_some());
        assert!(store.associations(&id).unwrap().is_empty());
    }
}
