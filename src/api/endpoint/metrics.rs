//! `/metrics`: statistics for Prometheus, in its text format.
//!
//! All of them are taken in the turn of the request, so that they fit together: some hundred bytes
//! a partition, of which there are at most [`PARTITIONS_MAX`](crate::node::PARTITIONS_MAX), without
//! a look at data. With 1,024 partitions in memory the longest turn of a scrape took 1.3 ms of
//! processor time, most took less than 0.5 ms. The text, 1.2 MB then, is made piece
//! by piece as the peer takes it: one family of one partition at a time, so no turn does more than
//! its budget and one such piece.
//!
//! Not here: which metrics there are (`api/metrics/families.rs`), the format
//! (`metrics/exposition.rs`).

use crate::http::{BodySource, Fill, Refusal, Reply};
use crate::metrics::Exposition;
use crate::node::Slot;

use crate::api::context::Api;
use crate::api::errors::refuse;
use crate::api::metrics::families::{OF_NODE, OF_PARTITION};
use crate::api::metrics::report::Report;

const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers on their way at a time: each holds the report that it tells.
const SCRAPE_MAX: usize = 4;

/// The text, on its way.
struct Scrape {
    report: Report,
    /// The family that is being told, and the partition that comes next.
    family: usize,
    partition: usize,
    _slot: Slot,
}

impl Scrape {
    /// Tells a family of the node, or one partition's part of a family; false: all is told.
    fn tell(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(family) = OF_NODE.get(self.family) {
            let mut text = Exposition::new(out, family.name);
            text.begin(family.kind, family.help);
            (family.samples)(&self.report, &mut text);
            self.family += 1;
            return true;
        }
        let Some(family) = OF_PARTITION.get(self.family - OF_NODE.len()) else {
            return false;
        };
        let mut text = Exposition::new(out, family.name);
        if self.partition == 0 {
            text.begin(family.kind, family.help);
        }
        if let Some(partition) = self.report.partitions.get(self.partition) {
            (family.samples)(partition, &mut text);
            self.partition += 1;
        } else {
            (self.family, self.partition) = (self.family + 1, 0);
        }
        true
    }
}

impl BodySource for Scrape {
    fn fill(&mut self, out: &mut Vec<u8>, budget_bytes: usize) -> Fill {
        let end = out.len() + budget_bytes;
        while self.tell(out) {
            if out.len() >= end {
                return Fill::More;
            }
        }
        Fill::Done
    }
}

impl Api<'_> {
    pub(crate) fn answer_metrics(&mut self, reply: Reply<'_>) {
        let Some(slot) = self.node.scrape_slots.take(SCRAPE_MAX) else {
            let message = format!(
                "{SCRAPE_MAX} answers with metrics are being read: try again when one is done"
            );
            return refuse(reply, &Refusal::new(503, "too_many_scrapes", message));
        };
        let report = Report::of(self.node, self.now_ms);
        let source = Scrape {
            report,
            family: 0,
            partition: 0,
            _slot: slot,
        };
        reply
            .status(200)
            .content_type(EXPOSITION)
            .source(Box::new(source));
    }
}
