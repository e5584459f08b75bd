//! What came of it, for people and for machines.

use hdrhistogram::Histogram;
use serde_json::{Value as Json, json};

use crate::drive::Outcome;
use crate::options::{Options, Order};

const PERCENTILES: [(&str, f64); 5] = [
    ("p50", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p999", 99.9),
    ("max", 100.0),
];

/// Prints a table, and writes JSON where that is wanted.
pub fn tell(options: &Options, outcome: &Outcome) -> Result<(), String> {
    let figures = figures(options, outcome);
    match options.json.as_deref() {
        Some("-") => {
            println!("{figures}");
            return Ok(());
        }
        Some(path) => std::fs::write(path, format!("{figures}\n"))
            .map_err(|error| format!("{path}: {error}"))?,
        None => {}
    }
    let per_second = per_second(outcome);
    println!(
        "{} answers in {:.2} s: {per_second:.0}/s, {} missing, {} refused",
        outcome.answered, outcome.seconds, outcome.missing, outcome.refused
    );
    let line = |name: &str, histogram: &Histogram<u64>| {
        let shown = PERCENTILES.map(|(name, share)| {
            format!("{name} {:.0}", micros(histogram.value_at_percentile(share)))
        });
        println!("{name} us: {}", shown.join("  "));
    };
    line("latency", &outcome.latency);
    if options.rate.is_some() {
        line("generator late", &outcome.lateness);
    }
    if let Some(usage) = outcome.usage {
        let cpu_us = micros(usage.cpu_ns) / float(outcome.answered.max(1));
        println!(
            "server: {cpu_us:.2} us of processor time a request, {} KiB resident",
            usage.resident_kib
        );
    }
    if outcome.refused > 0 && outcome.refused == outcome.answered {
        return Err("every request was refused: ask once by hand (curl -i) to see why".to_owned());
    }
    Ok(())
}

fn figures(options: &Options, outcome: &Outcome) -> Json {
    let histogram = |histogram: &Histogram<u64>| {
        let mut figures = json!({ "mean": histogram.mean() / 1_000.0 });
        // From the median to one in ten thousand, each time half of what is left.
        let curve = (1..=14).map(|halves| 100.0 - 100.0 / f64::from(1 << halves));
        figures["curve"] = curve
            .map(|share| json!([share, micros(histogram.value_at_percentile(share))]))
            .collect::<Vec<_>>()
            .into();
        for (name, share) in PERCENTILES {
            figures[name] = json!(micros(histogram.value_at_percentile(share)));
        }
        figures
    };
    let slice = |latency: &Histogram<u64>| {
        json!({
            "answered": latency.len(),
            "p50": micros(latency.value_at_percentile(50.0)),
            "p99": micros(latency.value_at_percentile(99.0)),
            "p999": micros(latency.value_at_percentile(99.9)),
            "max": micros(latency.max()),
        })
    };
    let cpu_us_per_request = outcome
        .usage
        .map(|usage| micros(usage.cpu_ns) / float(outcome.answered.max(1)));
    json!({
        "address": options.address.to_string(),
        "protocol": options.protocol.name(),
        "reads": options.read_share,
        "keys": options.key_count,
        "order": match options.order {
            Order::Uniform => "uniform".to_owned(),
            Order::Sequential => "sequential".to_owned(),
            Order::Zipf(exponent) => format!("zipf:{exponent}"),
        },
        "valueBytes": options.value_bytes,
        "connections": options.connection_count,
        "pipeline": options.pipeline,
        "rate": options.rate,
        "seed": options.seed,
        "seconds": outcome.seconds,
        "answered": outcome.answered,
        "missing": outcome.missing,
        "refused": outcome.refused,
        "perSecond": per_second(outcome),
        "latencyUs": histogram(&outcome.latency),
        "latenessUs": options.rate.map(|_| histogram(&outcome.lateness)),
        "cpuUsPerRequest": cpu_us_per_request,
        "residentKib": outcome.usage.map(|usage| usage.resident_kib),
        "sliceMs": options.slice_ms,
        "series": outcome.series.iter().map(slice).collect::<Vec<_>>(),
    })
}

fn per_second(outcome: &Outcome) -> f64 {
    float(outcome.answered) / outcome.seconds.max(1e-9)
}

fn micros(nanos: u64) -> f64 {
    float(nanos) / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "figures to look at")]
fn float(number: u64) -> f64 {
    number as f64
}
