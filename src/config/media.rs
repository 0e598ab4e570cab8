//! `[llm.models."provider/model"]`: what one model takes besides text, where the operator knows better.

use std::fmt::Write;

use super::describe::name;
use super::section::Section;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// `provider/model`.
    pub model: String,
    /// None: as its provider's section says, else as the program knows.
    pub images: Option<bool>,
    pub documents: Option<bool>,
}

impl ModelConfig {
    pub(super) fn read_all(section: &Section<'_, '_>) -> Vec<Self> {
        section.named_tables().into_iter().map(|(model, table)| Self::read(model, &table)).collect()
    }

    fn read(model: String, section: &Section<'_, '_>) -> Self {
        let (images, documents) = (section.switch("images"), section.switch("documents"));
        // As for a price, its provider need not be there: a key may come and go with the environment.
        let (provider, own_name) = model.split_once('/').unwrap_or((&model, ""));
        if provider.is_empty() || own_name.is_empty() {
            section.refuse_itself(format!("{model:?} must be provider/model"));
        }
        section.finish();
        Self { model, images, documents }
    }

    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n[llm.models.{}]", name(&self.model))?;
        for (key, value) in [("images", self.images), ("documents", self.documents)] {
            value.map_or(Ok(()), |value| writeln!(out, "{key} = {value}"))?;
        }
        Ok(())
    }
}
