//! WebP through libwebp, the decoder Pillow uses (the pure Rust one is five times slower). Of an animation, the first
//! frame on its canvas, as Pillow's `convert` of a freshly opened file gives it.
//!
//! Alpha is dropped without blending. This file is an FFI edge: everything above sees slices.
#![expect(unsafe_code, reason = "libwebp's C interface")]

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use libwebp_sys as ffi;

use super::{ImageLimits, Rgb, buffer_bytes, damaged};
use crate::ImageError;

const FORMAT: &str = "WebP";

pub(super) fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<Rgb, ImageError> {
    let features = Features::read(bytes)?;
    limits.check_size(FORMAT, features.width as u64, features.height as u64)?;
    let values = if features.animated { first_frame(bytes, &features)? } else { still(bytes, &features)? };
    Rgb::new(values, features.width, features.height).ok_or_else(|| damaged(FORMAT, "it has fewer rows than it states"))
}

/// What the header says.
struct Features {
    width: usize,
    height: usize,
    animated: bool,
}

impl Features {
    fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let mut found = MaybeUninit::<ffi::WebPBitstreamFeatures>::zeroed();
        // SAFETY: the pointer and the length are those of one live slice; `found` is writable and, being plain integers,
        // initialised by its zeros already.
        let (status, found) = unsafe {
            let status = ffi::WebPGetFeatures(bytes.as_ptr(), bytes.len(), found.as_mut_ptr());
            (status, found.assume_init())
        };
        if status != ffi::VP8StatusCode::VP8_STATUS_OK {
            return Err(damaged(FORMAT, "its header is broken or cut short"));
        }
        let side = |pixels: i32| usize::try_from(pixels).map_err(|_| damaged(FORMAT, "the header states a negative size"));
        Ok(Self { width: side(found.width)?, height: side(found.height)?, animated: found.has_animation != 0 })
    }
}

fn still(bytes: &[u8], features: &Features) -> Result<Vec<u8>, ImageError> {
    let row_bytes = buffer_bytes(FORMAT, features.width, 1, 3)?;
    let stride = i32::try_from(row_bytes).map_err(|_| damaged(FORMAT, "its rows are too long"))?;
    let mut values = vec![0; buffer_bytes(FORMAT, features.width, features.height, 3)?];
    // SAFETY: input and output pointers and lengths are those of live slices that do not overlap; libwebp checks that the
    // output holds `height` rows of `stride` bytes and fails otherwise.
    let written = unsafe { ffi::WebPDecodeRGBInto(bytes.as_ptr(), bytes.len(), values.as_mut_ptr(), values.len(), stride) };
    if written.is_null() { Err(damaged(FORMAT, "its data is broken or cut short")) } else { Ok(values) }
}

fn first_frame(bytes: &[u8], features: &Features) -> Result<Vec<u8>, ImageError> {
    let mut animation = Animation::open(bytes)?;
    let rgba = animation.next_frame(features)?;
    let mut values = Vec::with_capacity(buffer_bytes(FORMAT, features.width, features.height, 3)?);
    for [red, green, blue, _] in rgba.as_chunks::<4>().0 {
        values.extend_from_slice(&[*red, *green, *blue]);
    }
    Ok(values)
}

/// libwebp's animation decoder over `bytes`, freed on drop.
struct Animation<'a> {
    decoder: NonNull<ffi::WebPAnimDecoder>,
    /// The decoder keeps a pointer into the bytes.
    _bytes: &'a [u8],
}

impl<'a> Animation<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let data = ffi::WebPData { bytes: bytes.as_ptr(), size: bytes.len() };
        let version = ffi::WebPGetDemuxABIVersion();
        // SAFETY: `data` describes a live slice that `_bytes` borrows for as long as the decoder lives; no options means the
        // defaults: RGBA, one thread.
        let decoder = unsafe { ffi::WebPAnimDecoderNewInternal(&raw const data, std::ptr::null(), version) };
        let decoder = NonNull::new(decoder).ok_or_else(|| damaged(FORMAT, "its animation is broken or cut short"))?;
        Ok(Self { decoder, _bytes: bytes })
    }

    /// The next frame on the whole canvas, RGBA; valid until the next call.
    fn next_frame(&mut self, features: &Features) -> Result<&[u8], ImageError> {
        let len = buffer_bytes(FORMAT, features.width, features.height, 4)?;
        if self.canvas() != Some((features.width, features.height)) {
            return Err(damaged(FORMAT, "it states two sizes"));
        }
        let mut canvas: *mut u8 = std::ptr::null_mut();
        let mut timestamp = 0;
        // SAFETY: the decoder is live; both out pointers are writable.
        let done = unsafe { ffi::WebPAnimDecoderGetNext(self.decoder.as_ptr(), &raw mut canvas, &raw mut timestamp) };
        if done == 0 || canvas.is_null() {
            return Err(damaged(FORMAT, "its first frame is broken or cut short"));
        }
        // SAFETY: on success the canvas holds canvas width x height x 4 initialised bytes (compared with `features` above), owned
        // by the decoder and untouched until the next call, which needs `&mut self`.
        Ok(unsafe { std::slice::from_raw_parts(canvas, len) })
    }

    fn canvas(&self) -> Option<(usize, usize)> {
        let mut info = MaybeUninit::<ffi::WebPAnimInfo>::zeroed();
        // SAFETY: the decoder is live, `info` is writable, and its fields are integers that its zeros initialise.
        let (done, info) = unsafe {
            let done = ffi::WebPAnimDecoderGetInfo(self.decoder.as_ptr(), info.as_mut_ptr());
            (done, info.assume_init())
        };
        (done != 0).then_some((info.canvas_width as usize, info.canvas_height as usize))
    }
}

impl Drop for Animation<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `WebPAnimDecoderNewInternal`, freed once.
        unsafe { ffi::WebPAnimDecoderDelete(self.decoder.as_ptr()) };
    }
}
