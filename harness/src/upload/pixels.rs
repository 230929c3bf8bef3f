//! From 8-bit images to an encoder's input: normalised on the host, or as bytes that the device
//! normalises to the same bits.

use candle_core::{Result, Tensor};
use ndarray::{Array3, ArrayView3};

use super::Uploader;

/// An image on its way to an encoder.
pub(crate) enum Pixels {
    /// Normalised, `[3, H, W]`.
    Values(Vec<f32>),
    /// As it is, `[H, W, 3]`.
    Bytes(Vec<u8>),
}

/// Writes what an encoder sees of an image `[H, W, 3]` as `[3, H, W]`.
type Normalise<'a> = Box<dyn Fn(ArrayView3<'_, u8>, &mut [f32]) + Send + Sync + 'a>;

/// Takes images to a device.
pub(crate) struct Intake<'a> {
    pub(crate) uploader: &'a Uploader,
    normalise: Normalise<'a>,
    table: Option<Table>,
}

/// What the host makes of every byte of every channel. A device that looks values up there has the
/// host's bits, whatever precision they were computed in.
struct Table {
    /// `[3 * 256]`.
    values: Tensor,
    /// Where each channel begins, `[1, 3, 1, 1]`.
    starts: Tensor,
}

impl<'a> Intake<'a> {
    /// Takes images to the uploader's device as `normalise` makes them.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn new(
        uploader: &'a Uploader,
        normalise: impl Fn(ArrayView3<'_, u8>, &mut [f32]) + Send + Sync + 'a,
    ) -> Result<Self> {
        let table = match uploader.is_beside() {
            true => Some(Table::of(uploader, &normalise)?),
            false => None,
        };
        Ok(Self { uploader, normalise: Box::new(normalise), table })
    }

    /// An image `[H, W, 3]` as it travels: for threads that decode.
    pub(crate) fn pixels(&self, image: Array3<u8>) -> Pixels {
        if self.table.is_some() {
            let (bytes, start) = match image.is_standard_layout() {
                true => image.into_raw_vec_and_offset(),
                false => (image.iter().copied().collect(), Some(0)),
            };
            return Pixels::Bytes(match start {
                Some(start) if start > 0 => bytes[start..].to_vec(),
                _ => bytes,
            });
        }
        let mut values = vec![0f32; image.len()];
        (self.normalise)(image.view(), &mut values);
        Pixels::Values(values)
    }

    /// An image whose encoding nobody reads.
    pub(crate) fn blank(&self, (height, width): (usize, usize)) -> Pixels {
        let size = 3 * height * width;
        match self.table {
            Some(_) => Pixels::Bytes(vec![0; size]),
            None => Pixels::Values(vec![0.0; size]),
        }
    }

    /// Encoder inputs `[B, 3, H, W]` on the device, of images of one size from [`Intake::pixels`].
    ///
    /// # Errors
    /// If an image has another size, or the device fails.
    pub(crate) fn batch(
        &self,
        images: &[Pixels],
        (height, width): (usize, usize),
    ) -> Result<Tensor> {
        let (mut values, mut bytes) = (Vec::new(), Vec::new());
        for image in images {
            match image {
                Pixels::Values(image) => values.push(image.as_slice()),
                Pixels::Bytes(image) => bytes.push(image.as_slice()),
            }
        }
        match &self.table {
            Some(table) => {
                table.look_up(&self.uploader.concat(&bytes, (bytes.len(), height, width, 3))?)
            }
            None => self.uploader.concat(&values, (values.len(), 3, height, width)),
        }
    }
}

impl Table {
    fn of(uploader: &Uploader, normalise: &dyn Fn(ArrayView3<'_, u8>, &mut [f32])) -> Result<Self> {
        let every = Array3::from_shape_fn((256, 1, 3), |(byte, _, _)| byte as u8);
        let mut values = vec![0f32; every.len()];
        normalise(every.view(), &mut values);
        Ok(Self {
            values: uploader.concat(&[&values], 3 * 256)?,
            starts: uploader.concat(&[&[0u32, 256, 512]], (1, 3, 1, 1))?,
        })
    }

    /// Bytes `[B, H, W, 3]` as `[B, 3, H, W]`.
    fn look_up(&self, bytes: &Tensor) -> Result<Tensor> {
        let planes = bytes.permute((0, 3, 1, 2))?.contiguous()?;
        // Not by the bytes themselves: candle's selections take the largest index for "none".
        let places = planes.to_dtype(candle_core::DType::U32)?.broadcast_add(&self.starts)?;
        self.values.index_select(&places.flatten_all()?, 0)?.reshape(planes.shape())
    }
}

#[cfg(test)]
mod tests {
    use schema::SampleStage;
    use tasks::dense::{LabelForm, TargetForm};

    use super::*;

    fn bits(tensor: &Tensor) -> Vec<u32> {
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    }

    /// Every byte in every channel, in single and in double precision.
    #[test]
    fn a_device_normalises_to_the_hosts_bits() {
        let stage = SampleStage {
            revision: 1,
            border: None,
            scale: None,
            crop: 32,
            flip: 0.5,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        };
        let forms = [
            TargetForm::Labels { form: LabelForm::Shifted, classes: 3 },
            TargetForm::Depth { steps_per_metre: 1000 },
        ];
        let image = |seed: usize| {
            let value =
                |(y, x, c): (usize, usize, usize)| ((y * 16 + x) * (2 * c + 1) + seed) as u8;
            Array3::from_shape_fn((16, 16, 3), value)
        };
        for form in forms {
            let normalise = |image: ArrayView3<'_, u8>, out: &mut [f32]| {
                tasks::dense::normalise_into(image, form, &stage, out);
            };
            let (host, beside) =
                (Uploader::new(&candle_core::Device::Cpu).unwrap(), Uploader::beside());
            let [host, device] =
                [&host, &beside].map(|uploader| Intake::new(uploader, normalise).unwrap());
            let batch = |intake: &Intake<'_>| {
                let images = [0, 7].map(|seed| intake.pixels(image(seed)));
                intake.batch(&images, (16, 16)).unwrap()
            };
            let (expected, found) = (batch(&host), batch(&device));
            assert!(matches!(device.pixels(image(0)), Pixels::Bytes(_)));
            assert_eq!(found.dims(), [2, 3, 16, 16]);
            assert_eq!(bits(&found), bits(&expected));
            assert!(bits(&found).windows(2).any(|pair| pair[0] != pair[1]));
            assert!(device.batch(&[device.blank((8, 8))], (16, 16)).is_err());
        }
    }
}
