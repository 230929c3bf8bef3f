//! JPEG through libjpeg: accurate integer DCT and fancy upsampling, the settings Pillow decodes with.
//!
//! libjpeg reports a fatal error by calling `error_exit`, which must not return. Ours unwinds out of
//! the C frames (compiled with `-fexceptions`, declared `C-unwind`) without running the panic hook,
//! and is caught here, before anything else can see it. So this needs `panic = "unwind"`.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::ptr;

use mozjpeg_sys as sys;
use ndarray::Array3;
use sys::J_COLOR_SPACE::{JCS_CMYK, JCS_GRAYSCALE, JCS_RGB};

use super::error::{Format, ImageError};

/// Rows asked for in one call; libjpeg returns at most four at a time.
const ROWS: usize = 4;
/// `JMSG_LENGTH_MAX` of jpeglib.h.
const MESSAGE_LENGTH: usize = 200;

/// Decodes to `[H, W, 3]`. Grey is repeated over the channels; four components are inverted CMYK, as
/// Adobe writes it.
pub fn decode(bytes: &[u8], path: &Path) -> Result<Array3<u8>, ImageError> {
    #[cfg(target_arch = "x86_64")]
    if let Some(image) = attempt(bytes, path, |decompressor| decompressor.usual(path))? {
        return Ok(image);
    }
    attempt(bytes, path, |decompressor| decompressor.run(path))
}

/// What `of` makes of the bytes with a decompressor of its own, or libjpeg's fatal error.
fn attempt<T>(
    bytes: &[u8],
    path: &Path,
    of: impl FnOnce(&Decompressor<'_>) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    let decompressor = Decompressor::new(bytes);
    catch_unwind(AssertUnwindSafe(|| of(&decompressor)))
        .unwrap_or_else(|payload| Err(fatal(payload, path)))
}

/// What [`error_exit`] throws.
struct Fatal {
    code: i32,
    message: String,
}

fn fatal(payload: Box<dyn Any + Send>, path: &Path) -> ImageError {
    let path = path.to_owned();
    match payload.downcast::<Fatal>() {
        Ok(fatal) => match fatal.code as sys::J_MESSAGE_CODE {
            sys::JERR_ARITH_NOTIMPL
            | sys::JERR_BAD_PRECISION
            | sys::JERR_CCIR601_NOTIMPL
            | sys::JERR_CONVERSION_NOTIMPL
            | sys::JERR_FRACT_SAMPLE_NOTIMPL
            | sys::JERR_NOTIMPL
            | sys::JERR_SOF_UNSUPPORTED => {
                ImageError::Unsupported { path, found: format!("JPEG: {}", fatal.message) }
            }
            _ => ImageError::Corrupt { path, format: Format::Jpeg, reason: fatal.message },
        },
        Err(other) => resume_unwind(other),
    }
}

/// libjpeg's state. It points into itself, so each part keeps one heap address until dropped.
struct Decompressor<'a> {
    info: *mut sys::jpeg_decompress_struct,
    errors: *mut sys::jpeg_error_mgr,
    source: *mut sys::jpeg_source_mgr,
    /// What `source` points into.
    bytes: &'a [u8],
}

impl<'a> Decompressor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        // SAFETY: both are C structures of integers, pointers, optional functions and enums with a
        // zero variant, for which all zeros is a valid value.
        let (info, errors) = unsafe { (mem::zeroed(), mem::zeroed()) };
        let source = sys::jpeg_source_mgr {
            next_input_byte: bytes.as_ptr(),
            bytes_in_buffer: bytes.len(),
            init_source: Some(nothing),
            fill_input_buffer: Some(fill_input_buffer),
            skip_input_data: Some(skip_input_data),
            resync_to_restart: Some(sys::jpeg_resync_to_restart),
            term_source: Some(nothing),
        };
        Self {
            info: Box::into_raw(Box::new(info)),
            errors: Box::into_raw(Box::new(errors)),
            source: Box::into_raw(Box::new(source)),
            bytes,
        }
    }

    fn truncated(&self, at: String, path: &Path) -> ImageError {
        let (path, format) = (path.to_owned(), Format::Jpeg);
        ImageError::Truncated { path, format, bytes: self.bytes.len(), at }
    }

    /// Creates the decompressor, reads the header and checks the size.
    fn start(&self, path: &Path) -> Result<(), ImageError> {
        // SAFETY: `self.info` is a live allocation that only this thread and libjpeg use, and
        // nothing else borrows it while a caller is on the stack; the callbacks, called by libjpeg
        // below us, get it from libjpeg. `errors` and `source` outlive it (see `drop`).
        let info = unsafe {
            sys::jpeg_std_error(&mut *self.errors);
            (*self.errors).error_exit = Some(error_exit);
            (*self.errors).output_message = Some(output_message);
            (*self.info).common.err = self.errors;
            sys::jpeg_create_decompress(self.info);
            (*self.info).src = self.source;
            &mut *self.info
        };
        // SAFETY: `info` was created above and its source is set.
        if unsafe { sys::jpeg_read_header(info, 1) } != 1 {
            return Err(self.truncated("in the header".to_owned(), path));
        }
        ImageError::check_size(info.image_width, info.image_height, path)
    }

    /// The way of [`super::dct`]; `None` for what it leaves to [`Self::run`].
    #[cfg(target_arch = "x86_64")]
    fn usual(&self, path: &Path) -> Result<Option<Array3<u8>>, ImageError> {
        self.start(path)?;
        // SAFETY: as in `start`, which has read the header.
        let info = unsafe { &mut *self.info };
        // SAFETY: the header was just read.
        let pixels = unsafe { super::dct::decode(info) };
        pixels.map(|pixels| image(info, pixels, path)).transpose()
    }

    fn run(&self, path: &Path) -> Result<Array3<u8>, ImageError> {
        let truncated = |at| self.truncated(at, path);
        self.start(path)?;
        // SAFETY: as in `start`.
        let info = unsafe { &mut *self.info };
        let (space, components) = match info.num_components {
            1 => (JCS_GRAYSCALE, 1),
            3 => (JCS_RGB, 3),
            4 => (JCS_CMYK, 4),
            n => {
                let found = format!("a JPEG image of {n} components");
                return Err(ImageError::Unsupported { path: path.to_owned(), found });
            }
        };
        info.out_color_space = space;
        info.dct_method = sys::J_DCT_METHOD::JDCT_ISLOW;
        info.do_fancy_upsampling = 1;
        // SAFETY: the header has been read.
        if unsafe { sys::jpeg_start_decompress(info) } == 0 {
            return Err(truncated("before its last scan".to_owned()));
        }
        let (width, height) = (info.output_width as usize, info.output_height as usize);
        let mut out = vec![0; height * width * 3];
        let mut band =
            if components == 3 { Vec::new() } else { vec![0; ROWS * width * components] };
        let mut row = 0;
        while row < height {
            let wanted = ROWS.min(height - row);
            let start = row * width * 3;
            let target = if components == 3 { &mut out[start..] } else { &mut band[..] };
            let mut rows = [ptr::null_mut(); ROWS];
            for (pointer, line) in
                rows.iter_mut().zip(target.chunks_exact_mut(width * components)).take(wanted)
            {
                *pointer = line.as_mut_ptr();
            }
            // SAFETY: decompression has started; the first `wanted` pointers are to rows of
            // output_width * components bytes that nothing else refers to, and `components` is
            // what the output colour space has.
            let got = unsafe {
                sys::jpeg_read_scanlines(info, rows.as_mut_ptr(), wanted as sys::JDIMENSION)
            } as usize;
            if got == 0 {
                return Err(truncated(format!("in row {} of {height}", row + 1)));
            }
            let pixels = got * width;
            let done = &mut out[start..start + pixels * 3];
            match components {
                1 => grey_to_rgb(&band[..pixels], done),
                4 => inverted_cmyk_to_rgb(&band[..pixels * 4], done),
                _ => {}
            }
            row += got;
        }
        // Every row is there: data that stops before the end marker is let pass, as Pillow does, but
        // a marker that has no place there is still an error, by `error_exit`.
        // SAFETY: all rows have been read.
        unsafe { sys::jpeg_finish_decompress(info) };
        image(info, out, path)
    }
}

fn image(
    info: &sys::jpeg_decompress_struct,
    pixels: Vec<u8>,
    path: &Path,
) -> Result<Array3<u8>, ImageError> {
    let shape = (info.image_height as usize, info.image_width as usize, 3);
    Array3::from_shape_vec(shape, pixels).map_err(|error| ImageError::Corrupt {
        path: path.to_owned(),
        format: Format::Jpeg,
        reason: error.to_string(),
    })
}

impl Drop for Decompressor<'_> {
    fn drop(&mut self) {
        // SAFETY: all three came from `Box::into_raw` and are freed once. Destroying works on a
        // structure in any state, the zeroed one included, and does not call `error_exit`.
        unsafe {
            sys::jpeg_destroy_decompress(&mut *self.info);
            drop(Box::from_raw(self.info));
            drop(Box::from_raw(self.errors));
            drop(Box::from_raw(self.source));
        }
    }
}

fn grey_to_rgb(grey: &[u8], rgb: &mut [u8]) {
    for (&value, pixel) in grey.iter().zip(rgb.as_chunks_mut().0) {
        *pixel = [value; 3];
    }
}

/// Pillow's integer CMYK to RGB: with `c` ink, `k` black, both of 255, `(255 - k) - c (255 - k) / 255`,
/// the division rounded. The file holds 255 minus the ink.
fn inverted_cmyk_to_rgb(cmyk: &[u8], rgb: &mut [u8]) {
    for (&[c, m, y, white], pixel) in cmyk.as_chunks().0.iter().zip(rgb.as_chunks_mut().0) {
        let white = u32::from(white);
        *pixel = [c, m, y].map(|paper| {
            let product = u32::from(255 - paper) * white + 128;
            (white - ((product + (product >> 8)) >> 8)) as u8
        });
    }
}

unsafe extern "C-unwind" fn error_exit(info: &mut sys::jpeg_common_struct) {
    let mut buffer = [0_u8; MESSAGE_LENGTH];
    // SAFETY: libjpeg calls this with the error manager set by `run`. `format_message` writes at
    // most MESSAGE_LENGTH bytes through its second argument, a `char *` that the binding declares
    // as a shared reference to 80 bytes: the same in the C calling convention.
    let code = unsafe {
        let errors = info.err;
        if let Some(format) = (*errors).format_message {
            type Format =
                unsafe extern "C-unwind" fn(info: &mut sys::jpeg_common_struct, buffer: *mut u8);
            let format: Format = mem::transmute(format);
            format(info, buffer.as_mut_ptr());
        }
        (*errors).msg_code
    };
    let text = buffer.split(|&b| b == 0).next().unwrap_or_default();
    let message = String::from_utf8_lossy(text).into_owned();
    resume_unwind(Box::new(Fatal { code, message }));
}

/// Warnings go nowhere: like Pillow, a damaged but complete file gives libjpeg's best guess.
unsafe extern "C-unwind" fn output_message(_: &mut sys::jpeg_common_struct) {}

unsafe extern "C-unwind" fn nothing(_: &mut sys::jpeg_decompress_struct) {}

/// All data is there from the start. Asked for more, this suspends, which ends the decoding as
/// truncated.
unsafe extern "C-unwind" fn fill_input_buffer(_: &mut sys::jpeg_decompress_struct) -> sys::boolean {
    0
}

unsafe extern "C-unwind" fn skip_input_data(
    info: &mut sys::jpeg_decompress_struct,
    count: sys::c_long,
) {
    // SAFETY: `src` is the source of `Decompressor`, whose pointer and count describe what is left
    // of one slice; the advance is bounded by that count.
    unsafe {
        let source = &mut *info.src;
        let count = usize::try_from(count).unwrap_or(0).min(source.bytes_in_buffer);
        source.next_input_byte = source.next_input_byte.add(count);
        source.bytes_in_buffer -= count;
    }
}

#[cfg(all(test, target_arch = "x86_64", not(feature = "jpeg-simd")))]
mod tests {
    use super::*;

    /// Whole, damaged and of other sizes than they were written with: what the shorter way decodes at all,
    /// it decodes to libjpeg's pixels, and what either refuses both do.
    #[test]
    fn both_ways_give_the_same_pixels() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images/jpeg");
        let mut paths: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let files: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let (mut usual, mut refused) = (0, 0);
        for round in 0..16_000 {
            let mut bytes = files[round % files.len()].clone();
            let frame = bytes
                .windows(2)
                .position(|w| matches!(w, [0xff, 0xc0..=0xc2 | 0xc9 | 0xca]))
                .unwrap();
            if round >= files.len() {
                // Height and width, one time in two.
                if random(2) == 0 {
                    bytes[frame + 5..frame + 9].copy_from_slice(&[
                        0,
                        random(70) as u8,
                        0,
                        random(70) as u8,
                    ]);
                }
                for _ in 0..random(4) {
                    let at = frame + 9 + random(bytes.len() - frame - 9);
                    bytes[at] = random(256) as u8;
                }
                if random(8) == 0 {
                    bytes.truncate(random(bytes.len()));
                }
            }
            let path = &paths[round % files.len()];
            let plain = attempt(&bytes, path, |decompressor| decompressor.run(path));
            match attempt(&bytes, path, |decompressor| decompressor.usual(path)) {
                Ok(Some(image)) => {
                    usual += 1;
                    assert!(plain.is_ok_and(|plain| plain == image), "{} {round}", path.display());
                }
                Ok(None) => {}
                Err(error) => {
                    refused += 1;
                    assert_eq!(plain.unwrap_err().to_string(), error.to_string());
                }
            }
        }
        assert!(usual > 1000 && refused > 1000, "{usual} decoded, {refused} refused");
    }
}
