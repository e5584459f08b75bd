//! What was acknowledged is there after `kill -9` at any moment.

use std::io::{self};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::seeds::{number_from_environment, random_seed};
use crate::common::{Folder, let_pass, wait_for};
use crate::system_calls::checkpoint_version;
use crate::writer::{Wire, Writer};
use crate::{kill, start, stop};

#[test]
fn acknowledged_writes_survive_kill_9() {
    let seed = random_seed();
    let mut rng = seed.rng();
    let kill_count = number_from_environment("DB_NODE_TEST_KILLS").unwrap_or(20);
    let folder = Folder::new("kill-9");
    let mut writers: Vec<Writer> = (0..64)
        .map(|index| Writer::new(&format!("writer{index}"), 12))
        .collect();
    let (mut answer_count, mut unanswered_count, mut checkpoint_count) = (0, 0, 0);
    for _ in 0..kill_count {
        let mut node = start(&folder.0, &["--memtable-bytes", "64KiB"]);
        checkpoint_count += u64::from(checkpoint_version(&node) > 0);
        for writer in &mut writers {
            writer.check(&node);
        }
        let (address, answers) = (node.address, AtomicU64::new(0));
        thread::scope(|scope| {
            for writer in &mut writers {
                let (mut rng, answers) = (rng.fork(), &answers);
                // It ends with an error: the connection breaks.
                scope.spawn(move || writer.write_until_cut(address, &mut rng, answers).is_err());
            }
            let mut rng_of_checkpoints = rng.fork();
            scope.spawn(move || {
                let mut wire = Wire::connect(address)?;
                while wire.ask("POST", "/admin/checkpoint", b"")?.status == 202 {
                    let_pass(Duration::from_millis(rng_of_checkpoints.u64(1..60)));
                }
                io::Result::Ok(())
            });
            wait_for("a first answer", || answers.load(Ordering::Relaxed) > 0);
            let_pass(Duration::from_millis(rng.u64(10..150)));
            kill(&mut node);
        });
        answer_count += answers.into_inner();
        unanswered_count += writers
            .iter()
            .map(|writer| writer.unanswered.len())
            .sum::<usize>();
    }
    let node = start(&folder.0, &[]);
    for writer in &mut writers {
        writer.check(&node);
    }
    stop(node);
    eprintln!(
        "{kill_count} kills: {answer_count} writes answered, {unanswered_count} not; \
         {checkpoint_count} starts from a checkpoint"
    );
    assert!(answer_count > 0 && unanswered_count > 0 && checkpoint_count > 0);
}
