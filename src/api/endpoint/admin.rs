//! `/admin/freeze`, `/admin/compact` and `/admin/checkpoint`.

use crate::http::{Head, Refusal, Reply};
use crate::node::Subject;
use crate::partition::{DiskLog, Partition};

use crate::api::context::Api;
use crate::api::errors::{refuse, storage_refused};
use crate::api::request::route::Route;
use crate::api::request::values::JSON;

impl Api<'_> {
    pub(crate) fn answer_admin(&mut self, route: Route, head: &Head<'_>, reply: Reply<'_>) {
        match self.administer(route, head) {
            Ok((status, body)) => reply.status(status).content_type(JSON).body(body),
            Err(refusal) => refuse(reply, &refusal),
        }
    }

    /// The partition that a request names, unless its disk has failed. A full disk is no obstacle:
    /// a checkpoint may free room.
    fn durable_partition(&mut self, head: &Head<'_>) -> Result<&mut Partition, Refusal> {
        let partition = self.any_partition(head, Subject::Partition)?;
        match partition.disk().and_then(DiskLog::failure) {
            Some(error) => Err(storage_refused(error)),
            None => Ok(partition),
        }
    }

    fn administer(
        &mut self,
        route: Route,
        head: &Head<'_>,
    ) -> Result<(u16, &'static [u8]), Refusal> {
        match route {
            Route::Compact => {
                self.any_partition(head, Subject::Partition)?
                    .lsm_mut()
                    .compact();
                Ok((202, b"{\"success\":true}\n"))
            }
            Route::Checkpoint if self.durable_partition(head)?.request_checkpoint() => {
                Ok((202, b"{\"success\":true}\n"))
            }
            Route::Checkpoint => {
                let message = "this node keeps its data in memory only: start it with --data-dir, \
                               or use GET /snapshot";
                Err(Refusal::new(409, "memory_only", message))
            }
            _ if self
                .any_partition(head, Subject::Partition)?
                .lsm_mut()
                .freeze() =>
            {
                Ok((200, b"{\"success\":true,\"frozen\":true}\n"))
            }
            _ => Ok((200, b"{\"success\":true,\"frozen\":false}\n")),
        }
    }
}
