//! Which keys a day may hold: a Bloom filter beside each day's index, so that a look-up for what
//! is not there opens no database.
//!
//! The file is a row of chunks, each for `CHUNK_KEYS` keys; a chunk is a row of blocks of 64
//! octets: 60 of bits and a checksum over them. All bits of a key lie in one block. A block that
//! is missing or damaged answers "maybe".

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk::Disk;
use super::keys;
use super::layout;

/// The filter of a day that is being written to.
#[derive(Debug, Default)]
pub(super) struct Filter {
    chunks: Vec<Vec<u8>>,
    keys_in_last: usize,
    first_changed: Option<usize>,
}

/// Where in a chunk the bits of a key are.
struct Bits {
    block: usize,
    mask: [u8; BLOCK_BITS_BYTES],
}

impl Filter {
    /// Reads a filter; `None` when there is no whole one.
    pub(super) fn load(path: &Path) -> Option<Self> {
        let octets = std::fs::read(path).ok()?;
        let mut chunks = Vec::new();
        for chunk in octets.chunks(CHUNK_BYTES) {
            let mut bits = Vec::with_capacity(CHUNK_BLOCKS.saturating_mul(BLOCK_BITS_BYTES));
            for block in chunk.chunks(BLOCK_BYTES) {
                match checked(block) {
                    Some(good) => bits.extend_from_slice(good),
                    None => bits.extend_from_slice(&[u8::MAX; BLOCK_BITS_BYTES]),
                }
            }
            bits.resize(CHUNK_BLOCKS.saturating_mul(BLOCK_BITS_BYTES), u8::MAX);
            chunks.push(bits);
        }
        // Each key has set 6 bits, of which some were set before.
        let bits_set = |octet: &u8| usize::try_from(octet.count_ones()).unwrap_or_default();
        let keys_in_last =
            chunks.last().map_or(0, |chunk| chunk.iter().map(bits_set).sum::<usize>() / 5);
        Some(Self { chunks, keys_in_last, first_changed: None })
    }

    /// Adds the key that these rows of the index start with.
    pub(super) fn add(&mut self, prefix: &[u8]) {
        let bits = Bits::of(prefix);
        if self.chunks.iter().any(|chunk| bits.are_in_chunk(chunk)) {
            return;
        }
        if self.chunks.is_empty() || self.keys_in_last >= CHUNK_KEYS {
            self.chunks.push(vec![0; CHUNK_BLOCKS.saturating_mul(BLOCK_BITS_BYTES)]);
            self.keys_in_last = 0;
        }
        let last = self.chunks.len().saturating_sub(1);
        if let Some(chunk) = self.chunks.last_mut() {
            bits.set_in(chunk);
            self.keys_in_last = self.keys_in_last.saturating_add(1);
            self.first_changed = Some(self.first_changed.map_or(last, |at| at.min(last)));
        }
    }

    /// Whether the key may be there.
    pub(super) fn may_contain(&self, prefix: &[u8]) -> bool {
        let bits = Bits::of(prefix);
        self.chunks.iter().any(|chunk| bits.are_in_chunk(chunk))
    }

    /// Writes the chunks that have changed, and syncs them.
    pub(super) fn save(&mut self, disk: &Disk, path: &Path) -> io::Result<()> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        if let Some(first) = self.first_changed {
            for (number, chunk) in self.chunks.iter().enumerate().skip(first) {
                let mut octets = Vec::with_capacity(CHUNK_BYTES);
                for block in chunk.chunks(BLOCK_BITS_BYTES) {
                    octets.extend_from_slice(block);
                    octets.extend_from_slice(&crc32c::crc32c(block).to_le_bytes());
                }
                disk.write_at(&file, &octets, offset_of(number, 0))?;
            }
        }
        disk.sync_data(&file)?;
        self.first_changed = None;
        Ok(())
    }
}

/// Whether the key may be in the filter of this file, which is not read as a whole.
pub(super) fn file_may_contain(path: &Path, prefix: &[u8]) -> bool {
    let Ok(file) = File::open(path) else { return true };
    let Ok(len) = file.metadata().map(|data| data.len()) else { return true };
    let bits = Bits::of(prefix);
    let chunk_bytes = u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX);
    let chunks = usize::try_from(len.div_ceil(chunk_bytes)).unwrap_or(usize::MAX);
    (0..chunks).any(|number| {
        let mut block = [0; BLOCK_BYTES];
        match file.read_exact_at(&mut block, offset_of(number, bits.block)) {
            Ok(()) => checked(&block).is_none_or(|good| bits.are_in(good)),
            Err(_) => true,
        }
    })
}

impl Bits {
    fn of(prefix: &[u8]) -> Self {
        // Prefixes hold hashes, but short of 16 octets and with a tag: hashed once more.
        let hash = keys::hash16(&[prefix]);
        let (choice, spread) = hash.split_at(4);
        let choice = layout::u32_at(choice, 0).unwrap_or_default();
        let block = usize::try_from(choice).unwrap_or_default().checked_rem(CHUNK_BLOCKS);
        let mut mask = [0; BLOCK_BITS_BYTES];
        for pair in spread.as_chunks::<2>().0 {
            let bit = usize::from(u16::from_le_bytes(*pair)).checked_rem(BLOCK_BITS_BYTES * 8);
            let bit = bit.unwrap_or_default();
            if let Some(octet) = mask.get_mut(bit / 8) {
                *octet |= 1 << (bit % 8);
            }
        }
        Self { block: block.unwrap_or_default(), mask }
    }

    fn are_in(&self, block: &[u8]) -> bool {
        self.mask.iter().zip(block).all(|(wanted, there)| wanted & there == *wanted)
    }

    fn are_in_chunk(&self, chunk: &[u8]) -> bool {
        let start = self.block.saturating_mul(BLOCK_BITS_BYTES);
        let block = chunk.get(start..start.saturating_add(BLOCK_BITS_BYTES));
        block.is_none_or(|block| self.are_in(block))
    }

    fn set_in(&self, chunk: &mut [u8]) {
        let start = self.block.saturating_mul(BLOCK_BITS_BYTES);
        if let Some(block) = chunk.get_mut(start..start.saturating_add(BLOCK_BITS_BYTES)) {
            block.iter_mut().zip(&self.mask).for_each(|(octet, mask)| *octet |= mask);
        }
    }
}

/// The bits of a block whose checksum is right.
fn checked(block: &[u8]) -> Option<&[u8]> {
    let (bits, crc) = block.split_at_checked(BLOCK_BITS_BYTES)?;
    (layout::u32_at(crc, 0)? == crc32c::crc32c(bits)).then_some(bits)
}

fn offset_of(chunk: usize, block: usize) -> u64 {
    let octets =
        chunk.saturating_mul(CHUNK_BYTES).saturating_add(block.saturating_mul(BLOCK_BYTES));
    u64::try_from(octets).unwrap_or(u64::MAX)
}

/// Keys of one chunk: 15 bits each, of which 6 are set.
const CHUNK_KEYS: usize = 65_536;
const CHUNK_BLOCKS: usize = 2_048;
const BLOCK_BYTES: usize = 64;
const BLOCK_BITS_BYTES: usize = 60;
const CHUNK_BYTES: usize = CHUNK_BLOCKS * BLOCK_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::TempDir;

    fn key(number: u32) -> Vec<u8> {
        [b"m", number.to_be_bytes().as_slice()].concat()
    }

    #[test]
    fn what_was_added_is_found_and_nearly_nothing_else() {
        let dir = TempDir::new();
        let path = dir.path().join("keys");
        let mut filter = Filter::default();
        (0..100_000).for_each(|number| filter.add(&key(number)));
        filter.save(&Disk::default(), &path).unwrap();
        for number in 0..100_000 {
            assert!(filter.may_contain(&key(number)), "{number}");
        }
        assert!((0..100_000).step_by(97).all(|number| file_may_contain(&path, &key(number))));
        let wrong = (1_000_000..1_020_000).filter(|n| filter.may_contain(&key(*n))).count();
        assert!(wrong < 400, "{wrong} of 20,000");
        let wrong_in_file =
            (1_000_000..1_020_000).filter(|n| file_may_contain(&path, &key(*n))).count();
        assert_eq!(wrong, wrong_in_file);

        let mut again = Filter::load(&path).unwrap();
        again.add(&key(200_000));
        again.save(&Disk::default(), &path).unwrap();
        assert!(file_may_contain(&path, &key(200_000)) && file_may_contain(&path, &key(5)));
    }

    #[test]
    fn what_is_damaged_or_missing_answers_maybe() {
        let dir = TempDir::new();
        let path = dir.path().join("keys");
        assert!(file_may_contain(&path, &key(1)), "no file");
        let mut filter = Filter::default();
        filter.add(&key(1));
        filter.save(&Disk::default(), &path).unwrap();
        let octets = std::fs::read(&path).unwrap();
        let absent = (2..).map(key).find(|key| !file_may_contain(&path, key)).unwrap();
        let mut flipped = octets.clone();
        flipped.iter_mut().for_each(|octet| *octet ^= 1);
        for bad in [flipped, octets[..100].to_vec(), vec![0; octets.len()]] {
            std::fs::write(&path, &bad).unwrap();
            assert!(file_may_contain(&path, &absent));
            assert!(Filter::load(&path).unwrap().may_contain(&absent));
        }
    }
}
