//! `/status`, `/admin/freeze` and `/admin/compact`.

use crate::http::{Head, Refusal, Reply};

use super::route::Route;
use super::{Api, JSON, partition_id, refuse, status, unknown_partition};

impl Api<'_> {
    pub(super) fn answer_admin(&mut self, route: Route, head: &Head<'_>, reply: Reply<'_>) {
        if route == Route::Status {
            let body = serde_json::to_vec(&status::of(self.node, self.now_ms)).expect("plain fields serialize");
            reply.status(200).content_type(JSON).body(&body);
            return;
        }
        match self.administer(route, head) {
            Ok((status, body)) => reply.status(status).content_type(JSON).body(body),
            Err(refusal) => refuse(reply, &refusal),
        }
    }

    fn administer(&mut self, route: Route, head: &Head<'_>) -> Result<(u16, &'static [u8]), Refusal> {
        let id = partition_id(head)?;
        let partition = self.node.partition(id).ok_or_else(|| unknown_partition(id))?;
        if route == Route::Compact {
            partition.lsm_mut().compact();
            return Ok((202, b"{\"success\":true}"));
        }
        let frozen = partition.lsm_mut().freeze();
        Ok((200, if frozen { b"{\"success\":true,\"frozen\":true}" } else { b"{\"success\":true,\"frozen\":false}" }))
    }
}
