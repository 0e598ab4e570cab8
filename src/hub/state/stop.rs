//! The stop: draining, then cancelling, then the exit.

use super::*;

impl Hub {
    pub(super) fn stop(&mut self, now: Duration) {
        if self.stage != Stage::Running {
            return;
        }
        self.stage = Stage::Draining;
        for agent in self.agents.values_mut() {
            agent.ready.clear();
            agent.board = Board::default();
        }
        self.actions.push(Action::StopIntake);
        self.timers.set(&TimerKey::Stop, Some(now + STOP_GRACE));
        let idle: Vec<_> = self
            .processes
            .iter()
            .filter(|(key, process)| {
                process.waiting || matches!(key.1.kind, ProcessKind::Compactor | ProcessKind::Cortex)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in idle {
            self.cancel(&key, StopReason::Shutdown, now);
        }
    }

    pub(super) fn stop_harder(&mut self, now: Duration) {
        match self.stage {
            Stage::Draining => {
                self.stage = Stage::Cancelling;
                self.timers.set(&TimerKey::Stop, Some(now + STOP_CANCEL_WAIT));
                let keys: Vec<_> = self.processes.keys().cloned().collect();
                for key in keys {
                    self.cancel(&key, StopReason::Shutdown, now);
                }
            }
            Stage::Cancelling => self.exit(),
            Stage::Running | Stage::Done => {}
        }
    }

    pub(super) fn finish_stop(&mut self) {
        if matches!(self.stage, Stage::Draining | Stage::Cancelling) && self.processes.is_empty() {
            self.exit();
        }
    }

    pub(super) fn exit(&mut self) {
        self.stage = Stage::Done;
        self.actions.push(Action::Exit);
    }
}
