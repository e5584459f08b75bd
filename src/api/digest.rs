//! `/digest`: a hash of all content, to compare nodes by. Computed in slices while the answer is on its way.

use crate::http::{BodySource, Fill, Head, Reply};
use crate::lsm::{Digest, Digester};

use super::{Api, JSON, refuse};

struct DigestSource(Digester);

impl BodySource for DigestSource {
    fn fill(&mut self, out: &mut Vec<u8>, budget_bytes: usize) -> Fill {
        let Some(Digest { version, key_count, digest }) = self.0.step(budget_bytes) else { return Fill::More };
        let body = format!("{{\"version\":{version},\"keys\":{key_count},\"digest\":\"{digest:032x}\"}}");
        out.extend_from_slice(body.as_bytes());
        Fill::Done
    }
}

impl Api<'_> {
    pub(super) fn answer_digest(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        match self.snapshot(head) {
            Ok((snapshot, _)) => {
                let source = DigestSource(Digester::new(snapshot));
                reply.status(200).content_type(JSON).source(Box::new(source));
            }
            Err(refusal) => refuse(reply, &refusal),
        }
    }
}
