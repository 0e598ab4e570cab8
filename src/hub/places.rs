//! The number of each agent in the ids of answers. It must stay: clients ask for what comes behind an id that they have,
//! and an agent with another number would give them its last answers once more.

use std::collections::{BTreeMap, BTreeSet};

use super::outbox::MAX_AGENTS;
use crate::db::rusqlite::params;
use crate::db::{Db, DbError};
use crate::id::AgentId;

/// Numbers for these agents: those that they have, and for new ones the first that are free, at last those of agents that
/// are gone. Writes nothing when all have one.
///
/// # Errors
/// The instance database cannot be read or written.
pub fn places(instance: &Db, agents: &[AgentId]) -> Result<BTreeMap<AgentId, i64>, DbError> {
    let known = instance.read(|connection| {
        let mut statement = connection.prepare("SELECT agent_id, place FROM agent_places")?;
        let rows = statement
            .query_map([], |row| Ok((AgentId::new(row.get_ref(0)?.as_str()?), row.get::<_, i64>(1)?)))?;
        Ok(rows.collect::<Result<BTreeMap<_, _>, _>>()?)
    })?;
    let (places, new) = assign(known, agents);
    if !new.is_empty() {
        instance.write(move |connection| {
            for (agent, place) in &new {
                let sql = "DELETE FROM agent_places WHERE place = ?1";
                connection.execute(sql, [place])?;
                let sql = "INSERT INTO agent_places (agent_id, place) VALUES (?1, ?2)";
                connection.execute(sql, params![agent.as_str(), place])?;
            }
            Ok(())
        })?;
    }
    Ok(places)
}

type Places = BTreeMap<AgentId, i64>;

fn assign(known: Places, agents: &[AgentId]) -> (Places, Vec<(AgentId, i64)>) {
    let (mut places, mut new) = (Places::new(), Vec::new());
    let gone: BTreeSet<i64> =
        known.iter().filter(|(agent, _)| !agents.contains(agent)).map(|(_, place)| *place).collect();
    let taken: BTreeSet<i64> = known.values().copied().collect();
    let all = 0..i64::try_from(MAX_AGENTS).unwrap_or(i64::MAX);
    let mut free = all.filter(|place| !taken.contains(place)).chain(gone);
    for agent in agents {
        let place = known.get(agent).copied().or_else(|| {
            let place = free.next()?;
            new.push((agent.clone(), place));
            Some(place)
        });
        places.extend(place.map(|place| (agent.clone(), place)));
    }
    (places, new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::db::Schema;

    fn ids(names: &[&str]) -> Vec<AgentId> {
        names.iter().map(AgentId::new).collect()
    }

    #[test]
    fn an_agent_keeps_its_number_whoever_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open_inline_as(&folder.path().join("global.db"), Schema::Instance, None).unwrap();
        let of = |names: &[&str]| places(&db, &ids(names)).unwrap().into_values().collect::<Vec<_>>();
        assert_eq!(of(&["main"]), [0]);
        assert_eq!(of(&["alpha", "main"]), [1, 0]);
        assert_eq!(of(&["alpha", "beta"]), [1, 2], "the number of who is gone is kept for them");
        assert_eq!(of(&["alpha", "beta", "main"]), [1, 2, 0]);
    }

    #[test]
    fn who_is_gone_makes_room_when_there_is_none_left() {
        let many: Vec<String> = (0..MAX_AGENTS).map(|number| format!("a{number:02}")).collect();
        let known: Places = many.iter().map(AgentId::new).zip(0..).collect();
        let (places, new) = assign(known, &ids(&["a05", "new"]));
        assert_eq!((places[&AgentId::new("a05")], places[&AgentId::new("new")]), (5, 0));
        assert_eq!(new, [(AgentId::new("new"), 0)]);
    }
}
