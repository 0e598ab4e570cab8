//! `[…compaction]` of an agent or the defaults.

use super::super::CompactionConfig;
use super::super::section::Section;

pub(super) fn compaction(section: &Section<'_, '_>, base: &CompactionConfig) -> CompactionConfig {
    let threshold = |key, base| section.fraction(key).unwrap_or(base);
    let config = CompactionConfig {
        background: threshold("background_threshold", base.background),
        aggressive: threshold("aggressive_threshold", base.aggressive),
        emergency: threshold("emergency_threshold", base.emergency),
        extract_memories: section.switch("extract_memories").unwrap_or(base.extract_memories),
    };
    if config.background < CompactionConfig::LEAST {
        section.refuse("background_threshold", format!("must be from {} to 1", CompactionConfig::LEAST));
    }
    if config.aggressive < config.background {
        section.refuse("aggressive_threshold", "must not be below background_threshold");
    }
    if config.emergency < config.aggressive {
        section.refuse("emergency_threshold", "must not be below aggressive_threshold");
    }
    section.finish();
    config
}
