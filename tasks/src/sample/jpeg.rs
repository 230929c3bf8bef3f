//! Writing JPEG with libjpeg's own choices (mozjpeg's extensions off): baseline, 4:2:0, the same
//! bytes everywhere.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::{mem, ptr};

use mozjpeg_sys as sys;

/// Why a JPEG could not be written.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum JpegError {
    #[error("{width} x {height} pixels of 3 bytes expected, found {found} bytes")]
    Size { width: usize, height: usize, found: usize },
    #[error("libjpeg failed with message code {0}")]
    Library(i32),
}

/// Quality on libjpeg's scale.
const QUALITY: i32 = 92;
/// More than a compressed picture ever takes beside its header: 1.5 samples a pixel at 4:2:0, each
/// with at most 16 bits of code and 11 of value.
const BYTES_A_PIXEL: usize = 6;
const HEADER: usize = 1 << 16;

/// Encodes `[height, width, 3]`.
///
/// # Errors
///
/// Where the number of bytes does not fit the size, or libjpeg refuses it.
pub(super) fn encode(width: usize, height: usize, rgb: &[u8]) -> Result<Vec<u8>, JpegError> {
    if rgb.len() != width * height * 3 || rgb.is_empty() {
        return Err(JpegError::Size { width, height, found: rgb.len() });
    }
    // libjpeg does not return from a fatal error: `fail` unwinds to here.
    match catch_unwind(AssertUnwindSafe(|| compress(width, height, rgb))) {
        Ok(result) => result,
        Err(payload) => match payload.downcast::<JpegError>() {
            Ok(error) => Err(*error),
            Err(other) => resume_unwind(other),
        },
    }
}

unsafe extern "C-unwind" fn fail(info: &mut sys::jpeg_common_struct) {
    // SAFETY: libjpeg calls this with the manager that `compress` has set.
    let code = unsafe { (*info.err).msg_code };
    resume_unwind(Box::new(JpegError::Library(code)));
}

/// Frees what libjpeg has allocated, also while a failure unwinds.
struct Compressor {
    info: *mut sys::jpeg_compress_struct,
    errors: *mut sys::jpeg_error_mgr,
}

impl Drop for Compressor {
    fn drop(&mut self) {
        // SAFETY: both come from `Box::into_raw` in `compress` and are freed once, here;
        // destroying accepts a structure of zeros.
        unsafe {
            sys::jpeg_destroy_compress(&mut *self.info);
            drop(Box::from_raw(self.info));
            drop(Box::from_raw(self.errors));
        }
    }
}

fn compress(width: usize, height: usize, rgb: &[u8]) -> Result<Vec<u8>, JpegError> {
    let mut buffer = vec![0_u8; width * height * BYTES_A_PIXEL + HEADER];
    let mut out = buffer.as_mut_ptr();
    let mut length = buffer.len() as std::ffi::c_ulong;
    // SAFETY: C structures of integers, pointers, optional functions and enums with a zero variant.
    let (info, errors) = unsafe { (mem::zeroed(), mem::zeroed()) };
    let compressor =
        Compressor { info: Box::into_raw(Box::new(info)), errors: Box::into_raw(Box::new(errors)) };
    // SAFETY: the structures live until `compressor` is dropped, `out` and `length` until the end
    // of this function, after the last call. Every row handed over has `3 * width` bytes, which
    // `encode` has checked.
    unsafe {
        sys::jpeg_std_error(&mut *compressor.errors);
        (*compressor.errors).error_exit = Some(fail);
        (*compressor.info).common.err = compressor.errors;
        sys::jpeg_create_compress(compressor.info);
        let info = &mut *compressor.info;
        sys::jpeg_mem_dest(info, ptr::from_mut(&mut out), ptr::from_mut(&mut length));
        info.image_width = width as u32;
        info.image_height = height as u32;
        info.input_components = 3;
        info.in_color_space = sys::J_COLOR_SPACE::JCS_RGB;
        let profile = sys::JINT_COMPRESS_PROFILE_VALUE::JCP_FASTEST as i32;
        sys::jpeg_c_set_int_param(info, sys::J_INT_PARAM::JINT_COMPRESS_PROFILE, profile);
        sys::jpeg_set_defaults(info);
        sys::jpeg_set_quality(info, QUALITY, 1);
        info.optimize_coding = 1;
        info.dct_method = sys::J_DCT_METHOD::JDCT_ISLOW;
        sys::jpeg_start_compress(info, 1);
        for row in rgb.chunks_exact(3 * width) {
            let rows = [row.as_ptr()];
            sys::jpeg_write_scanlines(info, rows.as_ptr(), 1);
        }
        sys::jpeg_finish_compress(info);
    }
    drop(compressor);
    // libjpeg moves to a buffer of its own only when this one is full, which its size rules out.
    if ptr::eq(out, buffer.as_ptr()) {
        buffer.truncate(length as usize);
        buffer.shrink_to_fit();
        Ok(buffer)
    } else {
        Err(JpegError::Size { width, height, found: length as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_jpeg_of_the_right_size_comes_out() {
        let rgb: Vec<u8> = (0..33 * 17 * 3).map(|i| (i * 7 % 256) as u8).collect();
        let bytes = encode(33, 17, &rgb).unwrap();
        assert_eq!(bytes[..2], [0xff, 0xd8]);
        assert_eq!(bytes[bytes.len() - 2..], [0xff, 0xd9]);
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        // Precision 8, height, width, three components, luma sampled 2 x 2.
        assert_eq!(bytes[frame + 4..frame + 12], [8, 0, 17, 0, 33, 3, 1, 0x22]);
    }

    #[test]
    fn noise_fits_the_buffer() {
        let stream = crate::random::Stream::new(1);
        let rgb: Vec<u8> = (0..97 * 61 * 3)
            .map(|i| if stream.at([i, 0, 0, 0])[0] & 1 == 1 { 255 } else { 0 })
            .collect();
        assert!(encode(97, 61, &rgb).unwrap().len() < 97 * 61 * BYTES_A_PIXEL);
    }

    #[test]
    fn what_libjpeg_refuses_is_an_error() {
        let rgb = vec![0; 70_000 * 3];
        assert!(matches!(encode(70_000, 1, &rgb), Err(JpegError::Library(_))));
        assert!(matches!(encode(2, 2, &rgb), Err(JpegError::Size { found: 210_000, .. })));
    }
}
