//! The accounts of the instance and the models that are booked there.

use std::sync::Arc;
use std::thread::JoinHandle;

use spacebot::clock::SharedClock;
use spacebot::config::Config;
use spacebot::db::{Db, Schema};
use spacebot::llm::{LlmManager, offline};
use spacebot::onlookers::Onlookers;
use spacebot::usage::{Ledger, Rules};

use super::StartError;
use super::folders::make_folder;

/// Opens `data/global.db`.
pub(super) fn open(config: &Config, clock: SharedClock) -> Result<(Ledger, JoinHandle<()>), StartError> {
    let folder = config.data_folder.join("data");
    make_folder(&folder)?;
    let (db, handle) = Db::open_as(&folder.join("global.db"), "instance", Schema::Instance)
        .map_err(|error| StartError::of("instance database", &error))?;
    let ledger =
        Ledger::open(db, clock, Rules::of(config)).map_err(|error| StartError::of("usage", &error))?;
    Ok((ledger, handle))
}

/// Who looks on, and hears of ceilings.
pub(super) fn onlookers(ledger: &Ledger) -> Arc<Onlookers> {
    let onlookers: Arc<Onlookers> = Arc::default();
    ledger.tell_to(onlookers.clone());
    onlookers
}

pub(super) fn models(config: &Config, clock: &SharedClock, ledger: &Ledger) -> Arc<LlmManager> {
    let offline = offline::model(clock.clone());
    let manager = LlmManager::of(config, clock.clone(), offline);
    Arc::new(manager.metered(Arc::new(ledger.clone())))
}
