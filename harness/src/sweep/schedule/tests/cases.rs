//! A thousand cells on eight devices, in the mixes that sweeps have.

use std::time::Instant;

use super::*;

const HOUR: f64 = 3600.0;

/// A head that trains for some of an hour, in 2 to 6 GiB.
fn head(random: &mut Random) -> ProbeCost {
    let memory = (random.between(2.0, 6.0) * GIB as f64) as u64;
    ProbeCost { seconds: HOUR * random.between(0.2, 1.0), memory }
}

/// A dense stream: an encoder of 10 GiB that passes over the data for some hours.
fn dense(hours: f64, probes: usize, random: &mut Random) -> StreamCost {
    StreamCost {
        fixed: 60.0,
        encode: HOUR * hours,
        probes: (0..probes).map(|_| head(random)).collect(),
        shared_memory: 10 * GIB,
        needs: None,
        splittable_encode: false,
    }
}

/// Extractions of some hours that processes share, each with ten votes that wait for it.
fn votes(count: usize, random: &mut Random) -> Vec<StreamCost> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let encode = HOUR * random.between(0.2, 4.0);
        let extraction = StreamCost { splittable_encode: true, encode, ..dense(0.0, 0, random) };
        let votes = (0..10).map(|_| probe(random.between(30.0, 300.0))).collect();
        let needs = Some(streams.len());
        streams.push(extraction);
        let shared_memory = GIB;
        streams.push(StreamCost {
            fixed: 5.0,
            needs,
            probes: votes,
            shared_memory,
            ..dense(0.0, 0, random)
        });
    }
    streams
}

/// Mixes of 1,000 cells by name.
fn mixes() -> Vec<(&'static str, Vec<StreamCost>)> {
    let mut random = Random(9);
    let r = &mut random;
    let mut all = vec![
        ("5 streams of 200, passes of 3 h", (0..5).map(|_| dense(3.0, 200, r)).collect::<Vec<_>>()),
        ("3 streams of 333, passes of 12 h", (0..3).map(|_| dense(12.0, 333, r)).collect()),
        (
            "20 streams of 50, passes of 0.1 to 10 h",
            (0..20).map(|i| dense(0.1 * 1.27_f64.powi(i), 50, r)).collect(),
        ),
        ("250 streams of 4, passes of 2 h", (0..250).map(|_| dense(2.0, 4, r)).collect()),
        ("250 streams of 4, passes of 12 h", (0..250).map(|_| dense(12.0, 4, r)).collect()),
        ("1000 streams of 1", (0..1000).map(|_| dense(r.between(0.1, 12.0), 1, r)).collect()),
        ("1 stream of 1000, pass of 3 h", vec![dense(3.0, 1000, r)]),
        ("1 stream of 1000, pass of 12 h", vec![dense(12.0, 1000, r)]),
        ("100 extractions with 10 votes each", votes(100, r)),
    ];
    all[1].1[0].probes.push(head(r));
    // A probe as long as a device's whole share of the rest, and one that is longer.
    for (name, hours) in
        [("50 streams and a long probe", 80.0), ("50 streams and a giant probe", 300.0)]
    {
        let mut streams: Vec<_> = (0..50).map(|_| dense(1.0, 20, r)).collect();
        streams[17].probes[3].seconds = HOUR * hours;
        all.push((name, streams));
    }
    let mut mixed: Vec<_> =
        (0..20).map(|i| dense(0.2 * f64::from(1 + i % 7), 10 + i as usize, r)).collect();
    mixed.push(dense(6.0, 210, r));
    for mut stream in votes(40, r) {
        stream.needs = stream.needs.map(|needs| needs + 21);
        mixed.push(stream);
    }
    all.push(("dense streams, extractions and votes", mixed));
    all
}

fn cells(streams: &[StreamCost]) -> usize {
    streams.iter().map(|stream| stream.probes.len()).sum()
}

/// What the units of a plan take if every pass, start-up and probe is off by up to a share of its own.
fn perturbed(streams: &[StreamCost], plan: &Schedule, share: f64, random: &mut Random) -> Vec<f64> {
    let encode: Vec<f64> =
        streams.iter().map(|_| random.between(1.0 - share, 1.0 + share)).collect();
    let of_unit = |unit: &Unit| {
        let probes = unit.probes.iter().map(|&probe| streams[unit.stream].probes[probe].seconds);
        let own: f64 = probes.clone().sum();
        let off: f64 =
            probes.map(|seconds| seconds * random.between(1.0 - share, 1.0 + share)).sum();
        (unit.seconds - own) * encode[unit.stream] + off
    };
    plan.units.iter().map(of_unit).collect()
}

/// Mean and largest deviation of simulated makespans from the predicted one, as shares of it.
fn deviation(actual: impl Iterator<Item = f64>, predicted: f64) -> (f64, f64) {
    let off: Vec<f64> = actual.map(|makespan| (makespan / predicted - 1.0).abs()).collect();
    (off.iter().sum::<f64>() / off.len() as f64, off.iter().copied().fold(0.0, f64::max))
}

#[test]
fn a_thousand_cells_on_eight_devices() {
    let devices = equal_devices(8);
    for (name, streams) in mixes() {
        assert_eq!(cells(&streams), 1000, "{name}");
        let begin = Instant::now();
        let plan = schedule(&streams, &devices).unwrap();
        let took = begin.elapsed();
        assert!(took.as_secs_f64() < 1.0, "{name}: {took:?}");
        check(&streams, &devices, &plan);
        assert!(ratio(&plan) <= 1.25, "{name}: {}", ratio(&plan));
        let exact =
            makespan(&simulate(&streams, &devices, &plan.units, |unit| plan.units[unit].seconds));
        assert_eq!(exact, plan.makespan, "{name}");
        // Estimates that are off by up to a fifth, each in its own way. What a single probe takes is
        // known no better than its estimate.
        let probes = streams.iter().flat_map(|stream| &stream.probes);
        let longest = probes.map(|probe| probe.seconds).fold(0.0, f64::max);
        let tolerated = if longest > 0.9 * plan.makespan { 0.2 } else { 0.1 };
        let mut random = Random(1);
        let actual = (0..20).map(|_| {
            let seconds = perturbed(&streams, &plan, 0.2, &mut random);
            makespan(&simulate(&streams, &devices, &plan.units, |unit| seconds[unit]))
        });
        let (mean, _) = deviation(actual, plan.makespan);
        assert!(mean <= tolerated, "{name}: {mean}");
    }
}

#[test]
fn four_large_devices_and_four_small_ones_at_half_the_speed() {
    let large = DeviceCost { speed: 1.0, memory: 80 * GIB };
    let small = DeviceCost { speed: 0.5, memory: 24 * GIB };
    let devices = [[large; 4], [small; 4]].concat();
    for (name, streams) in mixes() {
        let plan = schedule(&streams, &devices).unwrap();
        check(&streams, &devices, &plan);
        assert!(ratio(&plan) <= 1.25, "{name}: {}", ratio(&plan));
    }
}

#[test]
#[ignore = "prints a study"]
fn how_far_predictions_are_off() {
    let large = DeviceCost { speed: 1.0, memory: 80 * GIB };
    let small = DeviceCost { speed: 0.5, memory: 24 * GIB };
    let unequal = [[large; 4], [small; 4]].concat();
    for (kind, devices) in [("8 equal devices", equal_devices(8)), ("4 large, 4 small", unequal)] {
        println!(
            "{kind}\n{:40} {:>5} {:>7} {:>6} {:>6} {:>8} {:>13} {:>13}",
            "mix", "units", "hours", "bound", "alone", "made in", "costs +-20%", "units +-20%"
        );
        for (name, streams) in mixes() {
            let begin = Instant::now();
            let plan = schedule(&streams, &devices).unwrap();
            let took = begin.elapsed();
            let mut random = Random(1);
            let run = |seconds: Vec<f64>| {
                makespan(&simulate(&streams, &devices, &plan.units, |unit| seconds[unit]))
            };
            let costs = deviation(
                (0..100).map(|_| run(perturbed(&streams, &plan, 0.2, &mut random))),
                plan.makespan,
            );
            let mut random = Random(2);
            let units = deviation(
                (0..100).map(|_| {
                    run(plan
                        .units
                        .iter()
                        .map(|unit| unit.seconds * random.between(0.8, 1.2))
                        .collect())
                }),
                plan.makespan,
            );
            println!(
                "{name:40} {:5} {:7.1} {:6.3} {:6} {:>8.1?} {:5.1}% ({:4.1}%) {:5.1}% ({:4.1}%)",
                plan.units.len(),
                plan.makespan / HOUR,
                ratio(&plan),
                plan.passes.alone,
                took,
                100.0 * costs.0,
                100.0 * costs.1,
                100.0 * units.0,
                100.0 * units.1,
            );
        }
    }
}

#[test]
fn a_plan_in_words() {
    let mut streams = vec![
        dense(3.0, 40, &mut Random(1)),
        dense(1.0, 1, &mut Random(2)),
        StreamCost { splittable_encode: true, ..dense(4.0, 0, &mut Random(3)) },
    ];
    for (index, probe) in streams[0].probes.iter_mut().enumerate() {
        probe.memory = (2 + index as u64 % 5) * GIB;
    }
    streams[1].probes[0].memory = 90 * GIB;
    let votes = StreamCost { needs: Some(2), ..dense(0.0, 9, &mut Random(4)) };
    streams.push(votes);
    let names =
        ["pixio-b ade20k 518", "pixio-h\u{1b}[2J nyuv2 630", "pixio-l imagenet1k 256", "k-NN"];
    let names = names.map(str::to_owned);
    let plan = schedule(&streams, &equal_devices(3)).unwrap();
    check(&streams, &equal_devices(3), &plan);
    let devices = ["cuda:0", "cuda:1", "cuda:2"].map(str::to_owned);
    let text = describe(&plan, &Names { streams: &names, devices: &devices });
    insta::assert_snapshot!(text);
    let unnamed = describe(&plan, &Names { streams: &[], devices: &[] });
    assert!(unnamed.contains("stream 3") && unnamed.contains("device 2"));
    // Many streams stay short.
    let many: Vec<_> = (0..300).map(|_| dense(2.0, 3, &mut Random(5))).collect();
    let plan = schedule(&many, &equal_devices(8)).unwrap();
    let long = vec!["checkpoints/".repeat(20); 300];
    for text in [
        text,
        describe(&plan, &Names { streams: &[], devices: &[] }),
        describe(&plan, &Names { streams: &long, devices: &[] }),
    ] {
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
    assert!(describe(&plan, &Names { streams: &[], devices: &[] }).lines().count() < 50);
}

#[test]
fn nothing_takes_no_time() {
    let empty = schedule(&[], &equal_devices(2)).unwrap();
    assert_eq!((empty.units.len(), empty.makespan, empty.lower_bound), (0, 0.0, 0.0));
    assert!(
        describe(&empty, &Names { streams: &[], devices: &[] }).starts_with("0 cells in 0 units")
    );
    let streams = [stream(0.0, [0.0, 0.0]), StreamCost { needs: Some(0), ..stream(0.0, []) }];
    let plan = schedule(&streams, &equal_devices(2)).unwrap();
    check(&streams, &equal_devices(2), &plan);
    assert_eq!(plan.makespan, 0.0);
}

#[test]
fn passes_are_counted_with_what_cells_wait_for() {
    let mut extraction = stream(4.0, []);
    extraction.splittable_encode = true;
    let votes = StreamCost { needs: Some(0), ..stream(0.0, [1.0; 5]) };
    let streams = [extraction, votes, stream(3.0, [1.0, 2.0])];
    let plan = schedule(&streams, &equal_devices(4)).unwrap();
    check(&streams, &equal_devices(4), &plan);
    assert!(plan.units.iter().filter(|unit| unit.stream == 0).count() > 1);
    let dense = plan.units.iter().filter(|unit| unit.stream == 2).count();
    assert_eq!(plan.passes, Passes { shared: 1 + dense, alone: 5 + 2 });
}

#[test]
fn costs_that_make_no_sense_are_refused() {
    let error = |streams: &[StreamCost], devices: &[DeviceCost]| {
        schedule(streams, devices).unwrap_err().to_string()
    };
    let one = equal_devices(1);
    assert_eq!(error(&[], &[]), "expected at least one device, found none");
    let slow = DeviceCost { speed: 0.0, memory: 1 };
    assert_eq!(error(&[], &[one[0], slow]), "device 1: expected a speed from 1e-6 to 1e6, found 0");
    let nan = [stream(1.0, []), stream(1.0, [1.0, f64::NAN])];
    assert_eq!(error(&nan, &one), "stream 1: expected a probe of 0 to 1e12 seconds, found NaN");
    let negative = [StreamCost { fixed: -1.0, ..stream(1.0, []) }];
    assert!(error(&negative, &one).contains("expected fixed of 0 to 1e12 seconds, found -1"));
    let needs = |needs: usize| StreamCost { needs: Some(needs), ..stream(1.0, [1.0]) };
    assert_eq!(error(&[needs(1)], &one), "stream 0 needs stream 1, but there are 1");
    let circle = [needs(1), needs(2), needs(1)];
    assert!(matches!(schedule(&circle, &one), Err(ScheduleError::Circle { stream: 1 | 2 })));
}
