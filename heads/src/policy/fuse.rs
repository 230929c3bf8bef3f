/// Appends the vectors of consecutive frames, oldest first and of one width, as differences and the
/// last one: `[e1 - e0, e2 - e1, e2]` for three, the vector itself for one. Before the first frame of an
/// episode its vector is repeated.
pub fn fuse(history: &[&[f32]], into: &mut Vec<f32>) {
    for pair in history.windows(2) {
        into.extend(pair[1].iter().zip(pair[0]).map(|(later, earlier)| later - earlier));
    }
    if let Some(last) = history.last() {
        into.extend_from_slice(last);
    }
}
