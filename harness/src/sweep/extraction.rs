//! Units that make the features of k-NN cells, sharing the shards with one another, and the cells that wait for
//! them.

use results::write_whole;

use super::SweepError;
use super::claims::{Released, Status, Taken};
use super::plan::Unit;
use super::work::{Look, Worked};
use crate::run::{RunError, extract};

impl Worked<'_> {
    /// Whether other units make the features that this one needs.
    pub(super) fn awaits_features(&self, unit: &Unit) -> Result<bool, SweepError> {
        let makes = |other: &&Unit| {
            other.extract && unit.cells.iter().any(|cell| other.cells.contains(cell))
        };
        let parts: Vec<&Unit> = self.plan.units.iter().filter(makes).collect();
        if parts.iter().any(|part| self.extracted(part).exists()) {
            return Ok(false);
        }
        // Where nobody can make them, this unit tries, and says why not.
        Ok(parts.iter().any(|part| !self.given_up.contains(&part.id)))
    }

    /// Says that the features of a unit's cells were all there in this launch.
    fn extracted(&self, unit: &Unit) -> std::path::PathBuf {
        let keys: Vec<String> = unit.cells.iter().map(|&at| self.plan.cells[at].key()).collect();
        let cells = schema::fingerprint(&keys);
        self.work.state.extracted().join(format!("{}-{}", self.work.launch, cells.short()))
    }

    pub(super) fn extraction(
        &mut self,
        unit: &Unit,
        left: &[usize],
        status: &std::sync::Mutex<Status>,
    ) -> Result<Look, SweepError> {
        if self.extracted(unit).exists() {
            return Ok(Look::Over);
        }
        if self.given_up.contains(&unit.id) {
            return Ok(Look::Over);
        }
        let claim = match self.take(&unit.id, &unit.id, self.features.kept())? {
            Some(Taken::Mine(claim)) => claim,
            Some(Taken::GaveUp { .. } | Taken::Failed { .. }) => {
                self.given_up.insert(unit.id.clone());
                return Ok(Look::Over);
            }
            Some(Taken::HeldBy { .. } | Taken::Contested) | None => return Ok(Look::Held),
        };
        let labels = vec![format!("features of {}", self.plan.cells[left[0]].label())];
        self.note_status(status, unit, left, &labels);
        let request = self.request(left);
        let (reporter, claims) = (self.reporter, [claim]);
        let (ran, took) = self.watched(&claims, || extract(&request, reporter));
        let [claim] = claims;
        let outcome = match ran {
            Ok(()) => {
                let marker = self.extracted(unit);
                write_whole(&marker, b"").map_err(SweepError::io("write", &marker))?;
                claim.give_back(Released::Done)?;
                "done"
            }
            Err(RunError::Interrupted) => {
                claim.give_back(Released::Interrupted)?;
                "interrupted"
            }
            Err(error) => {
                self.reporter.warn(format!("features: {error}"));
                claim.give_back(Released::Failed(error.to_string()))?;
                "failed"
            }
        };
        self.log(unit, left, took, outcome)?;
        Ok(Look::Worked)
    }
}
