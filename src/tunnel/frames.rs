//! WebSocket frame boundaries (RFC 6455 section 5.2), followed without touching a byte: just enough to know where a close
//! frame may be put between two frames, and what a close frame looks like.

/// Follows one direction of a tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boundary {
    header: [u8; 14],
    have: usize,
    payload_left: u64,
    closed: bool,
}

impl Boundary {
    /// Takes note of bytes that went by.
    pub fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let skip = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
                self.payload_left -= skip as u64;
                bytes = bytes.get(skip..).unwrap_or_default();
                continue;
            }
            if let Some(slot) = self.header.get_mut(self.have) {
                *slot = *first;
            }
            self.have += 1;
            bytes = rest;
            if let Some(length) = self.payload_length() {
                self.closed |= self.header[0] & 0x0f == 8;
                self.payload_left = length;
                self.have = 0;
            }
        }
    }

    /// Whether the next byte would begin a frame.
    pub fn is_between_frames(&self) -> bool {
        self.have == 0 && self.payload_left == 0
    }

    /// How many of `bytes`, which come next, still belong to the frame under way: 0 between frames, `None` when it goes on
    /// beyond them.
    pub fn rest_of_frame(&self, bytes: &[u8]) -> Option<usize> {
        let mut ahead = *self;
        let mut at = 0;
        while !ahead.is_between_frames() {
            let left = bytes.get(at..).filter(|left| !left.is_empty())?;
            let step = usize::try_from(ahead.payload_left).unwrap_or(usize::MAX).clamp(1, left.len());
            ahead.advance(left.get(..step)?);
            at += step;
        }
        Some(at)
    }

    /// Whether a close frame has gone by: nothing may follow it.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The payload's length once the header is whole.
    fn payload_length(&self) -> Option<u64> {
        let [_, second, ref rest @ ..] = self.header;
        let mask = if second & 0x80 != 0 { 4 } else { 0 };
        let (extended, length) = match second & 0x7f {
            126 => (2, rest.iter().take(2).fold(0, |n, byte| n << 8 | u64::from(*byte))),
            127 => (8, rest.iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte))),
            short => (0, u64::from(short)),
        };
        (self.have == 2 + extended + mask).then_some(length)
    }
}

/// A close frame with `code` and `reason` (at most 123 bytes of it). `mask` is set on frames that play the client.
pub fn close_frame(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.bytes().take(123));
    let mut frame = vec![0x88, payload.len() as u8 | if mask.is_some() { 0x80 } else { 0 }];
    if let Some(mask) = mask {
        frame.extend(mask);
        payload.iter_mut().zip(mask.into_iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    }
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let bit = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..126 => bytes.push(length as u8 | bit),
            126..65536 => {
                bytes.push(126 | bit);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(127 | bit);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(vec![0xff; length + if masked { 4 } else { 0 }]);
        bytes
    }

    #[test]
    fn boundaries_are_found_at_any_split() {
        for masked in [false, true] {
            for length in [0, 1, 125, 126, 65_535, 65_536] {
                let one = frame(2, length, masked);
                let two = [one.clone(), frame(1, 3, masked)].concat();
                for step in [1, 2, 3, 7, 100_000] {
                    let mut boundary = Boundary::default();
                    let mut at = 0;
                    for piece in two.chunks(step) {
                        boundary.advance(piece);
                        at += piece.len();
                        let between = at == one.len() || at == two.len();
                        assert_eq!(boundary.is_between_frames(), between, "{length} {step} {at}");
                    }
                    assert!(!boundary.is_closed());
                }
            }
        }
    }

    #[test]
    fn the_rest_of_a_frame_is_measured() {
        let whole = frame(2, 300, true);
        for cut in 0..whole.len() {
            let mut boundary = Boundary::default();
            boundary.advance(&whole[..cut]);
            let rest = if cut == 0 { 0 } else { whole.len() - cut };
            let next = [&whole[cut..], &frame(1, 5, true)].concat();
            assert_eq!(boundary.rest_of_frame(&next), Some(rest), "{cut}");
            if cut > 0 {
                assert_eq!(boundary.rest_of_frame(&whole[cut..whole.len() - 1]), None, "{cut}");
            }
        }
    }

    #[test]
    fn a_close_frame_is_noticed_and_made() {
        let mut boundary = Boundary::default();
        boundary.advance(&close_frame(1008, "key revoked", None));
        assert!(boundary.is_closed() && boundary.is_between_frames());
        assert_eq!(close_frame(1008, "no", None), [0x88, 4, 0x03, 0xf0, b'n', b'o']);
        assert_eq!(close_frame(1001, "", Some([1, 2, 3, 4])), [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xe9 ^ 2]);
        assert_eq!(close_frame(1000, &"x".repeat(500), None).len(), 2 + 125);
    }
}
