//! Prometheus's text format, version 0.0.4: `# HELP`, `# TYPE`, and a line a sample.
//!
//! Invariants:
//! 1. A family's help and type come once, before its samples, and all samples of a family are
//!    together: begin each family once.
//! 2. Values of labels are escaped; durations are told in seconds, as the convention is.

use std::fmt::{Display, Write};

use super::histogram::Histogram;

/// What is before every name.
const PREFIX: &str = "dbnode_";

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Goes up only.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations.
    Histogram,
}

/// A label: name and value.
pub type Label<'a> = (&'a str, &'a dyn Display);

/// Where samples are written; of one family at a time.
#[derive(Debug)]
pub struct Exposition<'o> {
    out: &'o mut Vec<u8>,
    name: &'static str,
}

impl<'o> Exposition<'o> {
    /// Samples of the family `name`, which was begun before.
    pub fn new(out: &'o mut Vec<u8>, name: &'static str) -> Self {
        Self { out, name }
    }

    /// Begins the family.
    pub fn begin(&mut self, kind: MetricKind, help: &str) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let name = self.name;
        self.write(format_args!(
            "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n"
        ));
    }

    /// One sample.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// One sample in seconds.
    pub fn seconds(&mut self, labels: &[Label<'_>], us: u64) {
        self.sample(labels, Seconds(us));
    }

    /// All samples of one histogram.
    pub fn histogram(&mut self, labels: &[Label<'_>], histogram: &Histogram) {
        for (bound_us, count) in histogram.cumulative() {
            self.line("_bucket", labels, Some(&Seconds(bound_us)), count);
        }
        self.line("_bucket", labels, Some(&"+Inf"), histogram.count());
        self.line("_sum", labels, None, Seconds(histogram.sum_us()));
        self.line("_count", labels, None, histogram.count());
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[Label<'_>],
        bound: Option<&dyn Display>,
        value: impl Display,
    ) {
        let name = self.name;
        self.write(format_args!("{PREFIX}{name}{suffix}"));
        let mut mark = '{';
        for (name, value) in labels
            .iter()
            .copied()
            .chain(bound.map(|bound| ("le", bound)))
        {
            self.write(format_args!("{mark}{name}=\""));
            let start = self.out.len();
            self.write(format_args!("{value}"));
            self.escape(start);
            self.out.push(b'"');
            mark = ',';
        }
        if mark == ',' {
            self.out.push(b'}');
        }
        self.write(format_args!(" {value}\n"));
    }

    /// Escapes what a label's value may not hold, from an index on.
    fn escape(&mut self, start: usize) {
        if self.out[start..]
            .iter()
            .any(|byte| matches!(byte, b'\\' | b'"' | b'\n'))
        {
            for byte in self.out.split_off(start) {
                match byte {
                    b'\n' => self.out.extend_from_slice(b"\\n"),
                    b'\\' | b'"' => self.out.extend_from_slice(&[b'\\', byte]),
                    byte => self.out.push(byte),
                }
            }
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Appending to memory does not fail.
        let _ = Appender(self.out).write_fmt(text);
    }
}

struct Appender<'o>(&'o mut Vec<u8>);

impl Write for Appender<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Microseconds, shown as seconds without an error of rounding.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if micros == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{micros:06}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut out = Vec::new();
        let mut text = Exposition::new(&mut out, "things_total");
        text.begin(MetricKind::Counter, "Things seen.");
        text.sample(&[], 3);
        text.sample(&[("a", &1), ("b", &"x\\y\"z\n")], 4);
        text.seconds(&[("a", &2)], 1_020_000);
        let expected = "# HELP dbnode_things_total Things seen.\n# TYPE dbnode_things_total \
                        counter\ndbnode_things_total \
                        3\ndbnode_things_total{a=\"1\",b=\"x\\\\y\\\"z\\n\"} \
                        4\ndbnode_things_total{a=\"2\"} 1.02\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn histograms_end_with_everything() {
        let mut histogram = Histogram::default();
        histogram.record(17);
        let mut out = Vec::new();
        Exposition::new(&mut out, "h").histogram(&[("kind", &"disk")], &histogram);
        let text = String::from_utf8(out).expect("text");
        assert!(
            text.starts_with("dbnode_h_bucket{kind=\"disk\",le=\"0.000016\"} 0\n"),
            "{text}"
        );
        let end = "le=\"+Inf\"} 1\ndbnode_h_sum{kind=\"disk\"} \
                   0.000017\ndbnode_h_count{kind=\"disk\"} 1\n";
        assert!(text.ends_with(end), "{text}");
    }
}
