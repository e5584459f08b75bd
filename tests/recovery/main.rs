//! What a start makes of the files that it finds, on a simulated disk: the state that the partition
//! was in, or a refusal that names a file.

#[path = "../common/seeds.rs"]
mod seeds;
#[path = "../common/sim_disk.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod sim_disk;

mod copies;
mod crashes;
mod lost_files;
