//! Octets as they come in from a network: in pieces that nobody chose.

/// Cuts `octets` into pieces whose sizes the seed decides; seed 0 leaves them whole, and seed 1
/// makes every octet a piece.
pub fn cut(octets: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut state = u32::from(seed).wrapping_mul(0x9e37_79b9) | 1;
    let mut rest = octets;
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let size = match seed {
            0 => rest.len(),
            1 => 1,
            // Mostly a few octets, for that is where lines and their ends are cut.
            _ if state & 7 == 0 => 1 + (state >> 8) as usize % 200,
            _ => 1 + (state >> 8) as usize % 7,
        };
        let (piece, tail) = rest.split_at(size.min(rest.len()));
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}
