use super::*;

#[test]
fn latencies_fall_into_powers_of_two() {
    let histogram = Histogram::default();
    histogram.add(Duration::from_nanos(10), 5);
    histogram.add(Duration::from_micros(3), 4);
    histogram.add(Duration::from_secs(1 << 20), 1);
    let counted: Vec<_> = histogram.classes().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, [(1, 5), (4, 4), (1 << 30, 1)]);
    assert_eq!(
        (histogram.percentile(0.5), histogram.percentile(0.9), histogram.percentile(1.0)),
        (1, 4, 1 << 30)
    );
    assert_eq!(Histogram::default().percentile(0.5), 0);
}
