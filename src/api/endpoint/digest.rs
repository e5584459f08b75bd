//! `/digest`: a hash over all keys and values, for comparing nodes. It is computed in slices while
//! the answer is sent. `?at=`, in Unix milliseconds, leaves out keys that expire until then, so
//! that nodes can be compared while keys expire.

use crate::http::{BodySource, Fill, Head, Reply};
use crate::lsm::{Digest, Digester};
use crate::node::Permit;
use crate::storage::VersionToken;

use crate::api::context::Api;
use crate::api::endpoint::snapshot::FullView;
use crate::api::errors::refuse;
use crate::api::request::params::Param;
use crate::api::request::positions::add_position;
use crate::api::request::values::JSON;

struct DigestSource {
    digester: Digester,
    token: VersionToken,
    _slot: Permit,
}

impl BodySource for DigestSource {
    fn fill(&mut self, out: &mut Vec<u8>, budget_bytes: usize) -> Fill {
        let Some(Digest {
            key_count, digest, ..
        }) = self.digester.step(budget_bytes)
        else {
            return Fill::More;
        };
        out.push(b'{');
        add_position(out, &self.token.text());
        let rest = format!(",\"keys\":{key_count},\"digest\":\"{digest:032x}\"}}\n");
        out.extend_from_slice(rest.as_bytes());
        Fill::Done
    }
}

impl Api<'_> {
    pub(crate) fn answer_digest(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        let at_ms = self
            .query(head)
            .number(Param::At, "a time in Unix milliseconds");
        match at_ms.and_then(|at_ms| Ok((at_ms, self.full_view(head)?))) {
            Ok((at_ms, view)) => {
                let FullView {
                    snapshot,
                    token,
                    slot,
                    ..
                } = view;
                let snapshot = snapshot.at_time(at_ms.unwrap_or(0));
                let source = DigestSource {
                    digester: Digester::new(snapshot),
                    token,
                    _slot: slot,
                };
                reply
                    .status(200)
                    .content_type(JSON)
                    .source(Box::new(source));
            }
            Err(refusal) => refuse(reply, &refusal),
        }
    }
}
