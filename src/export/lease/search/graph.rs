//! What the search needs of graphs, and nothing of leases.

use std::hash::{BuildHasherDefault, Hasher};

/// Multiplies and rotates: the default hasher takes most of the time in a debug build.
#[derive(Debug, Default)]
pub(super) struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }
    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x51_7c_c1_b7_27_22_0a_95);
    }
    fn write_isize(&mut self, value: isize) {
        self.write_u64(value.cast_unsigned() as u64);
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

pub(super) type Quickly = BuildHasherDefault<Quick>;

/// A state from which no order of calls leads to the end of all machines.
pub(super) fn without_an_end(states: usize, edges: &[(u32, u32)]) -> Option<u32> {
    let mut starts = vec![0_u32; states + 1];
    for (_, to) in edges {
        starts[*to as usize + 1] += 1;
    }
    for index in 0..states {
        starts[index + 1] += starts[index];
    }
    let mut filled = starts.clone();
    let mut backward = vec![0_u32; edges.len()];
    for (from, to) in edges {
        let place = &mut filled[*to as usize];
        backward[*place as usize] = *from;
        *place += 1;
    }
    let mut ends = vec![false; states];
    let finished = edges
        .iter()
        .filter(|(from, to)| from == to)
        .map(|(from, _)| *from);
    let mut open = finished.collect::<Vec<_>>();
    while let Some(state) = open.pop() {
        let state = state as usize;
        if std::mem::replace(&mut ends[state], true) {
            continue;
        }
        open.extend(&backward[starts[state] as usize..starts[state + 1] as usize]);
    }
    let lost = ends.iter().position(|ends| !ends)?;
    u32::try_from(lost).ok()
}
