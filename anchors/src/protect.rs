//! Protected evaluation sets: is a pair's picture one of theirs, or too like one?
//!
//! Four tests, in this order: equal bytes (SHA-256 of the stored picture), perceptual hashes that differ little, descriptors of a copy-detection
//! model that are near (where one is given), image vectors that are near. The first that holds names the match. A pair whose picture the pool
//! did not keep, or that cannot be decoded, is tested by its vector alone, and counted.

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc};

use anchorite_encoder::{
    Embedding, Encode, EncodeError, Pixels,
    image::{ImageLimits, Rgb, decode},
};
use anchorite_index::{Cancel, Record, StoreError};
use anchorite_ingest::{ColumnChoice, ColumnOptions, Limits as SourceLimits, Rows, VectorMode};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::{
    CurateError, Limits,
    diversity::dot,
    policy::Protect,
    reason::{How, Match},
};

/// 128 bits that change little when a picture is scaled, recompressed or recoloured a little: for a 9 x 9 grid of grey means, whether
/// each is darker than its right neighbour (64 bits) and than the one below (64 bits). None for a picture without any contrast, which is
/// equal to every other such picture.
#[must_use]
pub fn perceptual_hash(picture: &Rgb) -> Option<u128> {
    let grid = grey_grid(picture);
    let (low, high) = grid.iter().flatten().fold((u64::MAX, 0), |(low, high), v| (low.min(*v), high.max(*v)));
    if high - low < FLAT {
        return None;
    }
    let mut hash = 0_u128;
    for y in 0..8 {
        for x in 0..8 {
            hash = hash << 1 | u128::from(grid[y][x] < grid[y][x + 1]);
            hash = hash << 1 | u128::from(grid[y][x] < grid[y + 1][x]);
        }
    }
    Some(hash)
}

/// How unlike two hashes are: the bits that differ, for every 64 that are set in either. Half the bits of a photograph are set; a drawing on
/// a plain ground sets few, so that a plain count of differing bits would call unlike drawings alike.
#[must_use]
pub fn perceptual_distance(a: u128, b: u128) -> f32 {
    let either = (a | b).count_ones().max(1);
    (a ^ b).count_ones() as f32 * 64.0 / either as f32
}

/// Grid values are 256ths of a grey level; less than two levels between darkest and lightest cell is no contrast.
const FLAT: u64 = 512;
const GRID: usize = 9;

/// Means of grey over 9 x 9 cells of equal size, in 256ths of a level. A pixel on a border counts in both cells, by its share.
fn grey_grid(picture: &Rgb) -> [[u64; GRID]; GRID] {
    let (width, height) = (picture.width(), picture.height());
    let mut grid = [[0; GRID]; GRID];
    for (y, row) in grid.iter_mut().enumerate() {
        for (x, cell) in row.iter_mut().enumerate() {
            let mut sum = 0_u64;
            for (line, tall) in shares(y, height) {
                for (column, wide) in shares(x, width) {
                    let at = (line * width + column) * 3;
                    let pixel = &picture.values()[at..at + 3];
                    // ITU-R 601 in 256ths.
                    let grey = 77 * u64::from(pixel[0]) + 150 * u64::from(pixel[1]) + 29 * u64::from(pixel[2]);
                    sum += grey * tall * wide;
                }
            }
            *cell = sum / (width * height) as u64;
        }
    }
    grid
}

/// The pixels of a cell along one edge, and their shares of it: in ninths of a pixel, `size` in all.
fn shares(cell: usize, size: usize) -> impl Iterator<Item = (usize, u64)> {
    let (start, end) = (cell * size, (cell + 1) * size);
    (start / GRID..end.div_ceil(GRID)).map(move |pixel| {
        let overlap = end.min((pixel + 1) * GRID) - start.max(pixel * GRID);
        (pixel, overlap as u64)
    })
}

/// A picture of a protected set.
#[derive(Clone, Debug)]
struct Picture {
    set: usize,
    name: String,
    bytes: [u8; 32],
    perceptual: Option<u128>,
    descriptor: Option<Vec<f32>>,
    vector: Option<Vec<f32>>,
}

/// A model whose image embeddings tell copies of a picture from other pictures.
#[derive(Clone)]
struct CopyModel {
    model: Arc<dyn Encode>,
    /// Pictures encoded together.
    batch: usize,
    /// Cosine from which two pictures are copies.
    limit: f32,
}

impl fmt::Debug for CopyModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyModel").field("model", &self.model.name()).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl CopyModel {
    /// The descriptor of each picture; none for what is absent or cannot be decoded.
    fn describe(&self, pictures: &[Option<&[u8]>]) -> Result<Vec<Option<Vec<f32>>>, EncodeError> {
        let mut descriptors = Vec::with_capacity(pictures.len());
        for part in pictures.chunks(self.batch.max(1)) {
            let prepare = |bytes: &Option<&[u8]>| self.model.prepare_image((*bytes)?).ok();
            let prepared: Vec<Option<Pixels>> = part.par_iter().map(prepare).collect();
            let there: Vec<bool> = prepared.iter().map(Option::is_some).collect();
            let pixels: Vec<Pixels> = prepared.into_iter().flatten().collect();
            let made = if pixels.is_empty() { Vec::new() } else { self.model.encode_images(&pixels)? };
            let mut made = made.into_iter();
            descriptors.extend(there.into_iter().map(|is| if is { made.next().map(Embedding::into_vec) } else { None }));
        }
        Ok(descriptors)
    }
}

/// What a set holds, for reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProtectedSet {
    /// Its name.
    pub name: String,
    /// Pictures that are protected.
    pub pictures: u64,
    /// Rows without a picture that can be read: they are not protected.
    pub unreadable: u64,
}

/// All protected pictures.
#[derive(Clone, Debug, Default)]
pub struct Protected {
    rules: Protect,
    sets: Vec<ProtectedSet>,
    pictures: Vec<Picture>,
    by_bytes: HashMap<[u8; 32], usize>,
    images: ImageLimits,
    copies: Option<CopyModel>,
}

impl Protected {
    /// Reads, hashes and encodes every set of the policy.
    ///
    /// # Errors
    /// Sources that cannot be read, sets without one readable picture, or an encoder that fails.
    pub fn read(rules: &Protect, encoder: &dyn Encode, limits: &Limits, cancel: &Cancel) -> Result<Self, CurateError> {
        Self::read_with(rules, encoder, None, limits, cancel)
    }

    /// As [`Protected::read`], with a copy-detection model: any whose image embeddings of a picture's copies are near each other.
    ///
    /// # Errors
    /// As [`Protected::read`].
    pub fn read_with(
        rules: &Protect,
        encoder: &dyn Encode,
        copies: Option<Arc<dyn Encode>>,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Self, CurateError> {
        let copies =
            copies.zip(rules.copy_similarity).map(|(model, limit)| CopyModel { model, batch: limits.encode_batch, limit });
        let mut protected = Self { rules: rules.clone(), copies, ..Self::default() };
        for set in &rules.sets {
            protected.read_set(&set.name, &PathBuf::from(&set.source), (encoder, limits), cancel)?;
        }
        Ok(protected)
    }

    /// Whether there is anything to protect.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    /// The sets, for reports.
    #[must_use]
    pub fn sets(&self) -> &[ProtectedSet] {
        &self.sets
    }

    /// Whether pairs must be read with their pictures.
    #[must_use]
    pub fn needs_pictures(&self) -> bool {
        !self.is_empty() && (self.rules.exact || self.rules.perceptual.is_some() || self.copies.is_some())
    }

    /// Whether pairs must be read with their image vectors.
    #[must_use]
    pub fn needs_vectors(&self) -> bool {
        !self.is_empty() && (self.rules.similarity.is_some() || self.rules.nearer_than_queries)
    }

    fn read_set(
        &mut self,
        name: &str,
        source: &std::path::Path,
        (encoder, limits): (&dyn Encode, &Limits),
        cancel: &Cancel,
    ) -> Result<(), CurateError> {
        let columns = ColumnOptions { caption: ColumnChoice::Absent, ..ColumnOptions::default() };
        let mut rows = Rows::open(&[source.to_owned()], columns, VectorMode::Encode, SourceLimits::default())?;
        self.sets.push(ProtectedSet { name: name.to_owned(), ..ProtectedSet::default() });
        let mut batch: Vec<(String, Vec<u8>)> = Vec::new();
        loop {
            if cancel.is_cancelled() {
                return Err(StoreError::Cancelled.into());
            }
            let row = rows.next_row()?;
            let last = row.is_none();
            match row {
                Some(Ok(row)) => match row.picture {
                    Some(bytes) => batch.push((format!("{}#{}", row.source.file, row.source.row), bytes)),
                    None => self.count_unreadable(),
                },
                Some(Err(_)) => self.count_unreadable(),
                None => {}
            }
            if last || batch.len() >= limits.encode_batch.max(1) {
                self.add(std::mem::take(&mut batch), encoder)?;
            }
            if self.pictures.len() > limits.max_protected {
                return Err(CurateError::TooMany { what: "protected pictures", max: limits.max_protected });
            }
            if last {
                break;
            }
        }
        match self.sets.last() {
            Some(set) if set.pictures == 0 => Err(CurateError::EmptyProtected { set: name.to_owned() }),
            _ => Ok(()),
        }
    }

    fn count_unreadable(&mut self) {
        if let Some(set) = self.sets.last_mut() {
            set.unreadable += 1;
        }
    }

    fn add(&mut self, batch: Vec<(String, Vec<u8>)>, encoder: &dyn Encode) -> Result<(), CurateError> {
        let with_vectors = self.rules.similarity.is_some() || self.rules.nearer_than_queries;
        let (rules, images) = (&self.rules, &self.images);
        let prepared: Vec<(Option<u128>, Option<Pixels>)> = batch
            .par_iter()
            .map(|(_, bytes)| {
                let perceptual = rules.perceptual.and_then(|_| decode(bytes, images).ok()).and_then(|p| perceptual_hash(&p));
                (perceptual, encoder.prepare_image(bytes).ok())
            })
            .collect();
        let pictures: Vec<Option<&[u8]>> = batch.iter().map(|(_, bytes)| Some(bytes.as_slice())).collect();
        let descriptors = self.describe(&pictures)?;
        let set = self.sets.len() - 1;
        let mut pixels = Vec::new();
        let mut places = Vec::new();
        for (((name, bytes), (perceptual, prepared)), descriptor) in batch.into_iter().zip(prepared).zip(descriptors) {
            // What the encoder cannot read is no picture of a test either.
            let Some(prepared) = prepared else {
                self.count_unreadable();
                continue;
            };
            let digest: [u8; 32] = Sha256::digest(&bytes).into();
            self.by_bytes.entry(digest).or_insert(self.pictures.len());
            places.push(self.pictures.len());
            self.pictures.push(Picture { set, name, bytes: digest, perceptual, descriptor, vector: None });
            self.sets[set].pictures += 1;
            if with_vectors {
                pixels.push(prepared);
            }
        }
        if !pixels.is_empty() {
            for (place, embedding) in places.into_iter().zip(encoder.encode_images(&pixels)?) {
                self.pictures[place].vector = Some(embedding.into_vec());
            }
        }
        Ok(())
    }

    /// The copy-detection model's fingerprint, where one takes part.
    #[must_use]
    pub fn copy_model(&self) -> Option<&str> {
        self.copies.as_ref().map(|copies| copies.model.fingerprint())
    }

    /// What each record matches, if anything. `queries` are the finetune set's image vectors.
    ///
    /// # Errors
    /// A copy-detection model that fails.
    pub fn check(&self, records: &[Record], queries: &[&[f32]]) -> Result<Vec<Option<Match>>, EncodeError> {
        if self.is_empty() {
            return Ok(vec![None; records.len()]);
        }
        let seen: Vec<Option<Match>> =
            records.par_iter().map(|record| self.same_bytes(record).or_else(|| self.same_look(record))).collect();
        // What is recognised already needs no descriptor.
        let open = records.iter().zip(&seen).map(|(record, seen)| record.picture.as_deref().filter(|_| seen.is_none()));
        let pictures: Vec<Option<&[u8]>> = open.collect();
        let descriptors = self.describe(&pictures)?;
        let rest = |((record, seen), descriptor): ((&Record, Option<Match>), Option<Vec<f32>>)| {
            seen.or_else(|| self.copy(&descriptor?)).or_else(|| self.near(record, queries))
        };
        Ok(records.par_iter().zip(seen).zip(descriptors).map(rest).collect())
    }

    /// Descriptors of pictures; nothing without a copy-detection model.
    fn describe(&self, pictures: &[Option<&[u8]>]) -> Result<Vec<Option<Vec<f32>>>, EncodeError> {
        self.copies.as_ref().map_or_else(|| Ok(vec![None; pictures.len()]), |copies| copies.describe(pictures))
    }

    fn copy(&self, descriptor: &[f32]) -> Option<Match> {
        let limit = self.copies.as_ref()?.limit;
        let (place, cosine) = self.nearest(descriptor, |picture| picture.descriptor.as_deref())?;
        (cosine >= limit).then(|| self.found(place, How::Copy, cosine))
    }

    /// The protected picture whose vector is nearest; of equally near ones the first.
    fn nearest(&self, vector: &[f32], of: impl Fn(&Picture) -> Option<&[f32]>) -> Option<(usize, f32)> {
        let cosines = self.pictures.iter().enumerate().filter_map(|(place, picture)| Some((place, dot(vector, of(picture)?))));
        cosines.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    fn found(&self, place: usize, how: How, value: f32) -> Match {
        let picture = &self.pictures[place];
        Match { set: self.sets[picture.set].name.clone(), picture: picture.name.clone(), how, value }
    }

    fn same_bytes(&self, record: &Record) -> Option<Match> {
        let bytes = record.picture.as_deref().filter(|_| self.rules.exact)?;
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        self.by_bytes.get(&digest).map(|place| self.found(*place, How::Exact, 0.0))
    }

    fn same_look(&self, record: &Record) -> Option<Match> {
        let limit = self.rules.perceptual?;
        let hash = perceptual_hash(&decode(record.picture.as_deref()?, &self.images).ok()?)?;
        let distance = |p: &Picture| p.perceptual.map(|other| perceptual_distance(hash, other));
        let all = self.pictures.iter().enumerate().filter_map(|(place, p)| distance(p).map(|far| (place, far)));
        let (place, far) = all.min_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)))?;
        (far <= limit as f32).then(|| self.found(place, How::Perceptual, far))
    }

    fn near(&self, record: &Record, queries: &[&[f32]]) -> Option<Match> {
        if !self.needs_vectors() {
            return None;
        }
        let vector = record.image.as_deref()?;
        let (place, cosine) = self.nearest(vector, |picture| picture.vector.as_deref())?;
        if self.rules.similarity.is_some_and(|limit| cosine >= limit) {
            return Some(self.found(place, How::Similar, cosine));
        }
        let nearer = self.rules.nearer_than_queries && !queries.is_empty() && queries.iter().all(|q| dot(vector, q) < cosine);
        nearer.then(|| self.found(place, How::Nearer, cosine))
    }

    /// Whether the picture itself could be tested, not its vector alone.
    #[must_use]
    pub fn could_look(&self, record: &Record) -> bool {
        !self.needs_pictures() || record.picture.is_some()
    }

    /// Hash over every protected picture's bytes, in order, in hexadecimal: what was protected, for the manifest.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        self.pictures.iter().for_each(|p| hash.update(p.bytes));
        crate::questions::hex(&hash.finalize())
    }
}
