//! libjpeg-turbo's decoder (mozjpeg's copy) as a safe value: the edge to C.
//!
//! ```text
//!   bytes ──new──► Decoder ──rows──► pixels in a colour space of libjpeg's
//!                     └─────planes─► three colour planes, of which only what is wanted is transformed
//! ```
//!
//! libjpeg parses, undoes the entropy coding and hands each block to [`inverse_dct`], which is ours where the processor has AVX2
//! (`jpeg_idct.rs`) and leaves out blocks that nobody wants. Every bit of the file is decoded all the same, so that damage outside the wanted
//! part is found.
//!
//! A fatal error, and the end of the bytes, unwind through C (compiled for that) with a [`Stopped`]; the caller catches it. A file
//! that ends early is no error to libjpeg, which would make up the rest; Pillow refuses it when, as here, bytes are asked for
//! that are not there.

#![expect(unsafe_code, reason = "calls into C")]

use std::{
    ffi::c_int,
    marker::PhantomData,
    mem,
    ops::Range,
    panic::resume_unwind,
    ptr::{self, NonNull},
};

use mozjpeg_sys::{
    J_COLOR_SPACE, JDIMENSION, boolean, jpeg_common_struct, jpeg_component_info, jpeg_create_decompress, jpeg_decompress_struct,
    jpeg_destroy_decompress, jpeg_error_mgr, jpeg_mem_src, jpeg_read_header, jpeg_read_raw_data, jpeg_read_scanlines,
    jpeg_start_decompress, jpeg_std_error,
};

/// Samples along a block's edge.
pub(super) const EDGE: usize = 8;
/// Rows of a component in one row of MCUs, at most: a component has up to four blocks in each direction.
const MAX_ROWS: usize = 4 * EDGE;

/// Why decoding was given up; the payload of an unwinding.
#[derive(Debug)]
pub(super) enum Stopped {
    /// More bytes were asked for than there are.
    EndedEarly,
    /// libjpeg's message.
    Failed(String),
}

/// A JPEG whose header has been read.
pub(super) struct Decoder<'a> {
    state: NonNull<State>,
    bytes: PhantomData<&'a [u8]>,
}

/// On the heap, and reached only through [`Decoder::state`], since libjpeg keeps pointers into it.
struct State {
    info: jpeg_decompress_struct,
    errors: jpeg_error_mgr,
    wanted: Wanted,
}

/// Which blocks are to be transformed.
struct Wanted {
    /// Whether any of the MCUs' row at hand are.
    row: bool,
    /// Of each component, from which sample to which.
    columns: [Range<JDIMENSION>; 3],
}

/// What the header says of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Component {
    /// Blocks of it in an MCU: columns, rows.
    pub(super) sampling: (usize, usize),
    /// Samples of a row, in whole blocks.
    pub(super) stride: usize,
}

/// The part of three planes that is wanted, in whole MCUs.
pub(super) struct PlanesWanted {
    /// All rows of MCUs.
    pub(super) mcu_rows: usize,
    /// Rows of MCUs that are wanted; what comes out starts with the first.
    pub(super) rows: Range<usize>,
    /// Samples of each component's rows that are wanted; others have no meaning.
    pub(super) columns: [Range<usize>; 3],
}

impl<'a> Decoder<'a> {
    /// Reads everything up to the first scan. Unwinds with [`Stopped`].
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let wanted = Wanted { row: true, columns: [const { 0..JDIMENSION::MAX }; 3] };
        // SAFETY: both are plain C structures whose pointers and function pointers may be null, for libjpeg to fill in.
        let state = Box::new(unsafe { State { info: mem::zeroed(), errors: mem::zeroed(), wanted } });
        let decoder = Self { state: NonNull::from(Box::leak(state)), bytes: PhantomData };
        let state = decoder.state.as_ptr();
        // SAFETY: `state` is alive until `drop`, and nothing else refers to it. libjpeg keeps pointers to `errors`, `wanted` and
        // `bytes`, which outlive the decoder. Every function set here has the signature that its field declares.
        unsafe {
            jpeg_std_error(&mut (*state).errors);
            (*state).errors.error_exit = Some(fail);
            (*state).errors.emit_message = Some(keep_quiet);
            (*state).info.common.err = &raw mut (*state).errors;
            jpeg_create_decompress(&raw mut (*state).info);
            (*state).info.common.client_data = (&raw mut (*state).wanted).cast();
            jpeg_mem_src(&mut (*state).info, bytes.as_ptr(), bytes.len() as _);
            if let Some(source) = (*state).info.src.as_mut() {
                source.fill_input_buffer = Some(end_early);
            }
            jpeg_read_header(&mut (*state).info, 1);
        }
        decoder
    }

    fn info(&self) -> &jpeg_decompress_struct {
        // SAFETY: alive until `drop`; libjpeg changes it only in calls, which take `self` by value.
        unsafe { &self.state.as_ref().info }
    }

    /// Columns, rows.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.info().image_width as usize, self.info().image_height as usize)
    }

    /// What the samples mean.
    pub(super) fn color_space(&self) -> J_COLOR_SPACE {
        self.info().jpeg_color_space
    }

    /// All components.
    pub(super) fn components(&self) -> Vec<Component> {
        let info = self.info();
        let count = usize::try_from(info.num_components).unwrap_or(0);
        if info.comp_info.is_null() {
            return Vec::new();
        }
        // SAFETY: after the header was read, `comp_info` has `num_components` entries, owned by `info`.
        let all = unsafe { std::slice::from_raw_parts(info.comp_info, count) };
        let component = |c: &jpeg_component_info| Component {
            sampling: (c.h_samp_factor as usize, c.v_samp_factor as usize),
            stride: c.width_in_blocks as usize * EDGE,
        };
        all.iter().map(component).collect()
    }

    /// All pixels in `colors`, of `channels` bytes. `None` when libjpeg would give others. Unwinds with [`Stopped`].
    pub(super) fn rows(self, colors: J_COLOR_SPACE, channels: usize) -> Option<Vec<u8>> {
        let (width, height) = self.size();
        // SAFETY: alive until `drop`, and this is the only reference.
        let info = unsafe { &mut (*self.state.as_ptr()).info };
        info.out_color_space = colors;
        // SAFETY: `info` was made and its header read by `new`.
        unsafe { jpeg_start_decompress(info) };
        if (info.output_width as usize, info.output_height as usize, info.output_components as usize) != (width, height, channels)
        {
            return None;
        }
        let mut pixels = vec![0; width.checked_mul(height)?.checked_mul(channels)?];
        for row in pixels.chunks_exact_mut(width * channels) {
            let mut row = row.as_mut_ptr();
            // SAFETY: libjpeg writes one row of `output_width * output_components` bytes, which `row` has, as compared above.
            if unsafe { jpeg_read_scanlines(info, &raw mut row, 1) } != 1 {
                return None;
            }
        }
        Some(pixels)
    }

    /// The samples of three components, whole rows of MCUs of [`Component::stride`] samples a row, without anything done to them.
    /// `None` when there are other than three components or MCUs. Unwinds with [`Stopped`].
    pub(super) fn planes(self, wanted: PlanesWanted) -> Option<[Vec<u8>; 3]> {
        let components = <[Component; 3]>::try_from(self.components()).ok()?;
        let mcu_edge = components.iter().map(|c| c.sampling.1).max()? * EDGE;
        if wanted.mcu_rows != self.size().1.div_ceil(mcu_edge) || wanted.rows.end > wanted.mcu_rows || mcu_edge > MAX_ROWS {
            return None;
        }
        let room = |c: Component, mcu_rows: usize| vec![0_u8; c.stride * c.sampling.1 * EDGE * mcu_rows];
        let mut planes = components.map(|c| room(c, wanted.rows.len()));
        // Where the rows go that nobody wants.
        let mut spare = components.map(|c| room(c, 1));
        let state = self.state.as_ptr();
        // SAFETY: alive until `drop`, and these are the only references; libjpeg is not running.
        let info = unsafe {
            (*state).wanted.columns = wanted.columns.map(|c| c.start as JDIMENSION..c.end as JDIMENSION);
            &mut (*state).info
        };
        info.raw_data_out = 1;
        use_own_transform(info);
        // SAFETY: `info` was made and its header read by `new`.
        unsafe { jpeg_start_decompress(info) };
        for mcu_row in 0..wanted.mcu_rows {
            let place = wanted.rows.contains(&mcu_row).then(|| mcu_row - wanted.rows.start);
            let into = if place.is_some() { &mut planes } else { &mut spare };
            let mut rows = [[ptr::null_mut::<u8>(); MAX_ROWS]; 3];
            for ((rows, into), component) in rows.iter_mut().zip(into).zip(components) {
                let lines = component.sampling.1 * EDGE;
                let into = into.chunks_exact_mut(component.stride).skip(place.unwrap_or(0) * lines).take(lines);
                for (row, into) in rows.iter_mut().zip(into) {
                    *row = into.as_mut_ptr();
                }
            }
            let mut image = rows.each_mut().map(|rows| rows.as_mut_ptr());
            // SAFETY: `wanted` is read by `inverse_dct` alone, in the call below. That writes, of each component, the rows of one row of
            // MCUs, whole blocks as far as `width_in_blocks`: `image` has that many pointers, each to `stride` bytes.
            let lines = unsafe {
                (*state).wanted.row = place.is_some();
                jpeg_read_raw_data(info, image.as_mut_ptr(), mcu_edge as JDIMENSION)
            };
            if lines == 0 {
                return None;
            }
        }
        Some(planes)
    }
}

impl Drop for Decoder<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `Box::leak` in `new`, and not used after this.
        unsafe {
            jpeg_destroy_decompress(&mut (*self.state.as_ptr()).info);
            drop(Box::from_raw(self.state.as_ptr()));
        }
    }
}

extern "C-unwind" fn keep_quiet(_info: &mut jpeg_common_struct, _level: c_int) {}

extern "C-unwind" fn end_early(_info: &mut jpeg_decompress_struct) -> boolean {
    resume_unwind(Box::new(Stopped::EndedEarly))
}

/// Does not return, as libjpeg demands. Unwinding by hand runs no panic hook.
extern "C-unwind" fn fail(info: &mut jpeg_common_struct) {
    resume_unwind(Box::new(Stopped::Failed(message(info))))
}

fn message(info: &mut jpeg_common_struct) -> String {
    /// As `mozjpeg_sys` declares it.
    type Declared = unsafe extern "C-unwind" fn(&mut jpeg_common_struct, &[u8; 80]);
    /// As it is: it writes.
    type Real = unsafe extern "C-unwind" fn(&mut jpeg_common_struct, &mut [u8; 80]);
    // SAFETY: `err` was set by `new` to the decoder's own.
    let format = unsafe { info.err.as_ref() }.and_then(|errors| errors.format_message);
    let Some(format) = format else { return "the decoder failed".to_owned() };
    let mut text = [0; 80];
    #[expect(clippy::disallowed_methods, reason = "the binding declares a buffer that is written as one that is not")]
    // SAFETY: both types are pointers to functions of two pointers.
    let format = unsafe { mem::transmute::<Declared, Real>(format) };
    // SAFETY: libjpeg's function writes at most 80 bytes, the end mark included.
    unsafe { format(info, &mut text) };
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(not(target_arch = "x86_64"))]
fn use_own_transform(_info: &mut jpeg_decompress_struct) {}

#[cfg(target_arch = "x86_64")]
use avx2::use_own_transform;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::{ffi::c_int, slice};

    use mozjpeg_sys::{JDIMENSION, jpeg_component_info, jpeg_decompress_struct};

    use super::{EDGE, Wanted};
    use crate::image::jpeg_idct::{AREA, inverse};

    /// libjpeg's `jpeg_idct_method`: component, coefficients, rows of samples, column.
    type Transform = unsafe extern "C-unwind" fn(
        *mut jpeg_decompress_struct,
        *mut jpeg_component_info,
        *const i16,
        *const *mut u8,
        JDIMENSION,
    );
    /// libjpeg's `jpeg_idct_method_selector`; the last says which form of quantization table the transform wants.
    type Selector =
        unsafe extern "C-unwind" fn(*mut jpeg_decompress_struct, *mut jpeg_component_info, *mut Option<Transform>, *mut c_int);

    unsafe extern "C-unwind" {
        /// The binding of `mozjpeg_sys` names a compressor.
        fn jpeg_set_idct_method_selector(info: *mut jpeg_decompress_struct, selector: Option<Selector>);
    }

    pub(super) fn use_own_transform(info: &mut jpeg_decompress_struct) {
        if is_x86_feature_detected!("avx2") {
            // SAFETY: `info` was made by `jpeg_create_decompress`; `select` puts in a transform that this processor can run.
            unsafe { jpeg_set_idct_method_selector(info, Some(select)) };
        }
    }

    /// # Safety
    /// Called by libjpeg, for a component that is not scaled, on a processor with AVX2.
    unsafe extern "C-unwind" fn select(
        _info: *mut jpeg_decompress_struct,
        _component: *mut jpeg_component_info,
        transform: *mut Option<Transform>,
        _tables: *mut c_int,
    ) {
        // SAFETY: libjpeg's pointer to its own variable.
        unsafe { *transform = Some(inverse_dct) };
    }

    /// # Safety
    /// Called by libjpeg: `info` and `component` are what `planes` started, `coefficients` has a block, and `rows` has eight rows of at least
    /// `column + 8` samples.
    unsafe extern "C-unwind" fn inverse_dct(
        info: *mut jpeg_decompress_struct,
        component: *mut jpeg_component_info,
        coefficients: *const i16,
        rows: *const *mut u8,
        column: JDIMENSION,
    ) {
        // SAFETY: `client_data` was set by `new` to a `Wanted` that nothing changes while libjpeg runs; the rest is the caller's promise.
        let (wanted, component) = unsafe { (&*(*info).common.client_data.cast::<Wanted>(), &*component) };
        let columns = usize::try_from(component.component_index).ok().and_then(|at| wanted.columns.get(at));
        if !wanted.row || !columns.is_some_and(|c| c.contains(&column)) {
            return;
        }
        // SAFETY: a block has 64 coefficients, and the table is the component's own; `select` is set only where there is AVX2.
        let samples = unsafe {
            let coefficients: &[i16; AREA] = &*coefficients.cast();
            // libjpeg has no table, and takes zeros, for a component without data.
            inverse(coefficients, component.quant_table.as_ref().map_or(&[0; AREA], |table| &table.quantval))
        };
        for (at, row) in samples.as_chunks::<EDGE>().0.iter().enumerate() {
            // SAFETY: the caller's promise on `rows`.
            unsafe { slice::from_raw_parts_mut((*rows.add(at)).add(column as usize), EDGE) }.copy_from_slice(row);
        }
    }
}
