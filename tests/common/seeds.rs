//! Seeds of randomised tests: which ones run, and how to repeat the one that fails.
//!
//! `DB_NODE_TEST_SEED=n` runs seed n alone, and shows what the node logs. `DB_NODE_TEST_RUNS=n`
//! sets how many seeds run; with both, n seeds from that one on.
#![allow(dead_code, reason = "each test binary uses its part")]

/// The seed of one run. If the test fails while it exists, it is printed.
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    /// A source of random numbers that gives the same ones for the same seed.
    pub(crate) fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.0)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("seed {seed} fails: repeat it with DB_NODE_TEST_SEED={seed}");
        }
    }
}

/// The seeds to run: by default the first `default_count` numbers.
pub(crate) fn seeds(default_count: u64) -> impl Iterator<Item = Seed> {
    seeds_from(0, default_count)
}

/// The seed of a test that makes one run.
pub(crate) fn seed(default: u64) -> Seed {
    let mut seeds = seeds_from(default, 1);
    seeds.next().expect("at least one run")
}

/// A seed that is another one in every run of the test.
pub(crate) fn random_seed() -> Seed {
    seed(fastrand::u64(..))
}

fn seeds_from(default_first: u64, default_count: u64) -> impl Iterator<Item = Seed> {
    let (mut first, mut count) = (default_first, default_count);
    if let Some(chosen) = chosen_seed() {
        let _ = log::set_logger(&ShowAll).map(|()| log::set_max_level(log::LevelFilter::Debug));
        (first, count) = (chosen, 1);
    }
    if let Some(chosen) = number_from_environment("DB_NODE_TEST_RUNS") {
        count = chosen;
    }
    (0..count).map(move |index| Seed(first.wrapping_add(index)))
}

/// The seed that is to be repeated.
pub(crate) fn chosen_seed() -> Option<u64> {
    number_from_environment("DB_NODE_TEST_SEED")
}

/// A number that the caller of the test gives, to have more runs or other ones.
pub(crate) fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

/// A logger that prints every message.
struct ShowAll;

impl log::Log for ShowAll {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}", record.args());
    }

    fn flush(&self) {}
}
