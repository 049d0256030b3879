//! Observations of change: code, configuration, layers, versions and aliases of functions. No finding by themselves;
//! they explain new behaviour (the deploy class of detectors.md 0.3) and are kept for whoever asks.

use serde_json::Value;

use crate::entity::{EntityKind, short_name};
use crate::escalation::StepKind;
use crate::finding::Observation;
use crate::hour::{AccountHour, ApiRow, NONE, call_marks};
use crate::window::evidence_at;

/// The kind of change that a successful step is, as the `kind` of its observation.
fn kind_of(step: StepKind, detail: &Value) -> Option<&'static str> {
    match step {
        StepKind::UpdateCode => Some("code_change"),
        StepKind::UpdateConfiguration if detail.get("layers").is_some() => Some("layer_change"),
        StepKind::UpdateConfiguration => Some("configuration_change"),
        StepKind::PublishVersion => Some("version_published"),
        StepKind::Alias => Some("alias_change"),
        StepKind::PublishLayer => Some("layer_published"),
        StepKind::CreateFunction => Some("function_created"),
        StepKind::DeleteFunction => Some("function_deleted"),
        _ => None,
    }
}

/// A change that took place.
pub struct Change<'a> {
    /// ARN of the function, or name of the layer.
    pub function: &'a str,
    /// Its kind, as in `observations`.
    pub kind: &'static str,
    row: &'a ApiRow,
    detail: Value,
}

/// The changes of an hour, by (time, id).
#[must_use]
pub fn changes(hour: &AccountHour) -> Vec<Change<'_>> {
    let took_place = |row: &&ApiRow| row.step != NONE && row.target != NONE && row.error == NONE && row.marks & call_marks::DRY_RUN == 0;
    hour.calls
        .iter()
        .filter(took_place)
        .filter_map(|row| {
            let detail = serde_json::from_str(hour.text(row.detail)).unwrap_or(Value::Null);
            let kind = kind_of(StepKind::parse(hour.text(row.step))?, &detail)?;
            Some(Change { function: hour.text(row.target), kind, row, detail })
        })
        .collect()
}

impl Change<'_> {
    /// It changes how the function may behave.
    #[must_use]
    pub fn is_deploy(&self) -> bool {
        !matches!(self.kind, "function_deleted" | "layer_published")
    }

    /// The observation that is written.
    #[must_use]
    pub fn observation(&self, hour: &AccountHour) -> Observation {
        let word = |key: &str| self.detail.get(key).and_then(Value::as_str);
        let by = short_name(hour.text(self.row.principal));
        let mut said = Vec::new();
        if let Some(sha) = word("code_sha256") {
            said.push(format!("code {sha}"));
        }
        if let Some(Value::Array(layers)) = self.detail.get("layers") {
            said.push(format!("layers {}", layers.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")));
        }
        for key in ["version", "alias", "role", "layer_version"] {
            if let Some(text) = word(key) {
                said.push(format!("{key} {text}"));
            }
        }
        let what = if said.is_empty() { hour.text(self.row.action).to_owned() } else { said.join("; ") };
        Observation {
            time: self.row.time,
            account_id: hour.account.clone(),
            region: hour.opt(self.row.region).map(str::to_owned),
            entity_kind: EntityKind::Function.as_str().into(),
            entity_id: self.function.to_owned(),
            entity_name: crate::text::clean(short_name(self.function)),
            kind: self.kind.to_owned(),
            subject_kind: "change".into(),
            subject: crate::text::clean(&what),
            subject_name: crate::text::clean(&format!("{} by {by}", hour.text(self.row.action))),
            score_milli: 0,
            evidence: vec![evidence_at(hour, self.row.unit, self.row.position, self.row.event_id)],
        }
    }
}
