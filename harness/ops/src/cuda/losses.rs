//! Losses and predictions of logits that are resized on the way: `kernels/losses.cu`.

use candle_core::{DType, Result, Tensor, bail};

use crate::entropy::DeviceLoss;

use super::launch::{Argument, Grid, Input, Output, device, launch};

const THREADS: usize = 256;
/// Warps of a block.
const WARPS: usize = THREADS / 32;
/// Pixels of a block of classes, and of depth.
const PIXELS: usize = 64;
const AREA: usize = 1024;

/// As in the kernel.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Sizes {
    batch: i32,
    from_height: i32,
    from_width: i32,
    height: i32,
    width: i32,
    channels: i32,
    groups: i32,
    row_scale: f32,
    column_scale: f32,
}

/// Logits as kernels read them.
struct Logits {
    /// `[B, h, w, C]`, contiguous, f32 or bf16.
    images: Tensor,
    sizes: Sizes,
}

impl Logits {
    /// None if kernels do not serve: not on a GPU, too many classes, or too many pixels in an image or
    /// images for 32 bits or a grid.
    fn of(logits: &Tensor, (height, width): (usize, usize), groups: usize) -> Result<Option<Self>> {
        let (batch, channels, from_height, from_width) = logits.dims4()?;
        let sides = [batch, from_height, from_width, height, width, channels];
        let large = |a: usize, b: usize| a.saturating_mul(b) > i32::MAX as usize / 2;
        if !logits.device().is_cuda()
            || sides.contains(&0)
            || channels > 256
            || batch > 65535
            || large(height, width)
            || large(from_height, from_width)
        {
            return Ok(None);
        }
        let scale = |from: usize, to: usize| {
            if to > 1 { (from - 1) as f32 / (to - 1) as f32 } else { 0.0 }
        };
        let [batch, h, w, height, width, channels] = sides.map(|side| side as i32);
        let sizes = Sizes {
            batch,
            from_height: h,
            from_width: w,
            height,
            width,
            channels,
            groups: groups as i32,
            row_scale: scale(from_height, height as usize),
            column_scale: scale(from_width, width as usize),
        };
        let images = match logits.dtype() {
            DType::F32 | DType::BF16 => logits.detach(),
            _ => logits.detach().to_dtype(DType::F32)?,
        };
        let images = images.permute((0, 2, 3, 1))?.contiguous()?;
        Ok(Some(Self { images, sizes }))
    }

    fn dtype_name(&self) -> &'static str {
        if self.images.dtype() == DType::BF16 { "bf16" } else { "f32" }
    }

    /// A kernel of this dtype and number of classes.
    fn classes_kernel(&self, kernel: &str) -> String {
        let most = match self.sizes.channels {
            ..=32 => 32,
            33..=160 => 160,
            _ => 256,
        };
        format!("{kernel}_{}_{most}", self.dtype_name())
    }

    fn pixels(&self) -> usize {
        self.sizes.height as usize * self.sizes.width as usize
    }

    fn batch(&self) -> usize {
        self.sizes.batch as usize
    }

    /// Blocks of `size` pixels over all images.
    fn grid(&self, size: usize) -> Grid {
        let blocks = [self.pixels().div_ceil(size), self.batch(), 1];
        Grid { blocks, threads: THREADS, shared: 0 }
    }

    /// Runs `kernel` with the logits before `arguments`.
    ///
    /// # Safety
    /// As for [`launch`].
    unsafe fn launch(&self, kernel: &str, grid: Grid, arguments: &[&dyn Argument]) -> Result<()> {
        let device = device(&self.images)?;
        let (images, stream) = (Input::lock(&self.images), device.cuda_stream());
        let (address, _read) = images.pointer(&stream)?;
        let mut all: Vec<&dyn Argument> = vec![&address];
        all.extend(arguments);
        // SAFETY: the caller's.
        unsafe { launch(&device, "losses", kernel, grid, &all) }
    }

    /// The loss, from its value and how its gradient is made: `backward` gets the logits, where the gradient of
    /// the loss lies, and where theirs goes.
    fn loss(
        self,
        value: Tensor,
        backward: impl FnOnce(&Self, u64, u64) -> Result<()> + Send + Sync + 'static,
    ) -> DeviceLoss {
        let gradient = move |share: f64| {
            let device = device(&self.images)?;
            let stream = device.cuda_stream();
            let share = Tensor::full(share as f32, (), self.images.device())?;
            // SAFETY: the kernel writes the gradient of every logit.
            let mut gradient =
                unsafe { Output::new(&device, self.images.dtype(), self.images.elem_count())? };
            {
                let (share, (to, _written)) = (Input::lock(&share), gradient.pointer(&stream)?);
                let (from, _read) = share.pointer(&stream)?;
                backward(&self, from, to)?;
            }
            gradient.tensor(self.images.dims()).permute((0, 3, 1, 2))
        };
        DeviceLoss { value, gradient: Box::new(gradient) }
    }
}

/// The address of a tensor, for launches after which nothing else touches it.
fn address(tensor: &Tensor) -> Result<u64> {
    let stream = device(tensor)?.cuda_stream();
    Ok(Input::lock(tensor).pointer(&stream)?.0)
}

/// Unset tensors on the device of `logits`.
///
/// # Safety
/// What is read of them must be written before.
unsafe fn unset<const N: usize>(
    logits: &Logits,
    of: [(DType, &[usize]); N],
) -> Result<[Tensor; N]> {
    let device = device(&logits.images)?;
    let make = |(dtype, shape): (DType, &[usize])| {
        // SAFETY: the caller's.
        let memory = unsafe { Output::new(&device, dtype, shape.iter().product())? };
        Ok(memory.tensor(shape))
    };
    let made = of.into_iter().map(make).collect::<Result<Vec<_>>>()?;
    made.try_into().or_else(|_| bail!("as many tensors as asked for"))
}

/// Targets as the kernels read them, if they are where the logits are.
fn targets(logits: &Logits, targets: &Tensor, dtype: DType) -> Result<Option<Tensor>> {
    let same = targets.device().same_device(logits.images.device());
    (same && targets.dtype() == dtype).then(|| targets.detach().contiguous()).transpose()
}

/// [`crate::cross_entropy`].
pub(crate) fn cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    ignore: u8,
    groups: usize,
) -> Result<Option<DeviceLoss>> {
    let (_, height, width) = labels.dims3()?;
    let Some(logits) = Logits::of(logits, (height, width), groups)? else { return Ok(None) };
    let Some(labels) = targets(&logits, labels, DType::U8)? else { return Ok(None) };
    let (batch, grid) = (logits.batch(), logits.grid(PIXELS));
    let parts = grid.blocks[0] * batch;
    let (sizes, ignore, of_group) = (logits.sizes, i32::from(ignore), (parts / groups) as i32);
    // SAFETY: norms are read where there is a class, which is where they are written; the others whole.
    let [norms, sums, counts, value, weights] = unsafe {
        unset(
            &logits,
            [
                (DType::F32, &[batch, height, width]),
                // f64.
                (DType::I64, &[parts]),
                (DType::U32, &[parts]),
                (DType::F32, &[]),
                (DType::F32, &[groups]),
            ],
        )?
    };
    let [of_labels, of_norms, of_sums, of_counts] =
        [address(&labels)?, address(&norms)?, address(&sums)?, address(&counts)?];
    let [of_value, of_weights] = [address(&value)?, address(&weights)?];
    let forward = logits.classes_kernel("entropy_forward");
    let backward = logits.classes_kernel("entropy_backward");
    // SAFETY: the tensors are as large as the kernels' comments say, and live until they are launched.
    unsafe {
        logits.launch(
            &forward,
            grid,
            &[&of_labels, &sizes, &ignore, &of_norms, &of_sums, &of_counts],
        )?;
        launch(
            &device(&logits.images)?,
            "losses",
            "entropy_value",
            Grid::row(1, THREADS),
            &[&of_sums, &of_counts, &of_group, &sizes.groups, &of_value, &of_weights],
        )?;
    }
    let gradient = move |logits: &Logits, upstream: u64, to: u64| {
        let places = logits.images.elem_count() / sizes.channels as usize;
        let [of_labels, of_norms, of_weights] =
            [address(&labels)?, address(&norms)?, address(&weights)?];
        // SAFETY: as above; the gradient is as large as the logits.
        unsafe {
            logits.launch(
                &backward,
                Grid::row(places.div_ceil(WARPS), THREADS),
                &[&of_labels, &of_norms, &of_weights, &upstream, &sizes, &ignore, &to],
            )
        }
    };
    Ok(Some(logits.loss(value, gradient)))
}

/// [`crate::silog`].
pub(crate) fn silog(
    logits: &Tensor,
    metres: &Tensor,
    [least, most]: [f32; 2],
    groups: usize,
) -> Result<Option<DeviceLoss>> {
    let (_, height, width) = metres.dims3()?;
    let Some(logits) = Logits::of(logits, (height, width), groups)? else { return Ok(None) };
    let Some(metres) = targets(&logits, metres, DType::F32)? else { return Ok(None) };
    if logits.sizes.channels != 1 {
        bail!("silog: expected logits of one channel, found {}", logits.sizes.channels);
    }
    let grid = logits.grid(AREA);
    let parts = grid.blocks[0] * logits.batch();
    let (sizes, of_group) = (logits.sizes, (parts / groups) as i32);
    // SAFETY: the kernels write all of them before they are read.
    let [sums, counts, value, slopes] = unsafe {
        unset(
            &logits,
            [
                // f64.
                (DType::I64, &[parts, 2]),
                (DType::U32, &[parts]),
                (DType::F32, &[]),
                (DType::F32, &[groups, 2]),
            ],
        )?
    };
    let [of_metres, of_sums, of_counts] = [address(&metres)?, address(&sums)?, address(&counts)?];
    let [of_value, of_slopes] = [address(&value)?, address(&slopes)?];
    let forward = format!("silog_forward_{}", logits.dtype_name());
    let backward = format!("silog_backward_{}", logits.dtype_name());
    // SAFETY: the tensors are as large as the kernels' comments say, and live until they are launched.
    unsafe {
        logits.launch(
            &forward,
            grid,
            &[&of_metres, &sizes, &least, &most, &of_sums, &of_counts],
        )?;
        launch(
            &device(&logits.images)?,
            "losses",
            "silog_value",
            Grid::row(1, THREADS),
            &[&of_sums, &of_counts, &of_group, &sizes.groups, &of_value, &of_slopes],
        )?;
    }
    let gradient = move |logits: &Logits, upstream: u64, to: u64| {
        let [of_metres, of_slopes] = [address(&metres)?, address(&slopes)?];
        // SAFETY: as above; the gradient is as large as the logits.
        unsafe {
            logits.launch(
                &backward,
                Grid::row(logits.images.elem_count().div_ceil(WARPS), THREADS),
                &[&of_metres, &of_slopes, &upstream, &sizes, &least, &most, &to],
            )
        }
    };
    Ok(Some(logits.loss(value, gradient)))
}

/// [`crate::resized_softmax`].
pub(crate) fn softmax(logits: &Tensor, (height, width): (usize, usize)) -> Result<Option<Tensor>> {
    let Some(logits) = Logits::of(logits, (height, width), 1)? else { return Ok(None) };
    let shape = [logits.batch(), height, width, logits.sizes.channels as usize];
    // SAFETY: the kernel writes the probabilities of every pixel.
    let [result] = unsafe { unset(&logits, [(DType::F32, &shape)])? };
    let (kernel, to) = (logits.classes_kernel("softmax"), address(&result)?);
    // SAFETY: the result is `[B, H, W, C]`, as the kernel writes it.
    unsafe { logits.launch(&kernel, logits.grid(PIXELS), &[&logits.sizes, &to])? };
    result.permute((0, 3, 1, 2)).map(Some)
}

/// [`crate::resized_depth`].
pub(crate) fn depth(
    logits: &Tensor,
    (height, width): (usize, usize),
    most: f32,
) -> Result<Option<Tensor>> {
    let Some(logits) = Logits::of(logits, (height, width), 1)? else { return Ok(None) };
    if logits.sizes.channels != 1 {
        bail!("depth: expected logits of one channel, found {}", logits.sizes.channels);
    }
    // SAFETY: the kernel writes every pixel.
    let [result] = unsafe { unset(&logits, [(DType::F32, &[logits.batch(), 1, height, width])])? };
    let (kernel, to) = (format!("depth_{}", logits.dtype_name()), address(&result)?);
    // SAFETY: the result is `[B, H, W]`, as the kernel writes it.
    unsafe { logits.launch(&kernel, logits.grid(AREA), &[&logits.sizes, &most, &to])? };
    Ok(Some(result))
}

/// [`crate::argmax_classes`] of `[B, C, H, W]` f32.
pub(crate) fn argmax(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let maps = x.permute((0, 2, 3, 1))?.contiguous()?;
    let device = device(x)?;
    let stream = device.cuda_stream();
    let pixels = batch * height * width;
    // SAFETY: the kernel writes the class of every pixel.
    let mut classes = unsafe { Output::new(&device, DType::U8, pixels)? };
    {
        let maps = Input::lock(&maps);
        let ((from, _read), (to, _written)) = (maps.pointer(&stream)?, classes.pointer(&stream)?);
        let grid = Grid::row(pixels.div_ceil(WARPS), THREADS);
        let arguments: [&dyn Argument; 4] = [&from, &(pixels as i64), &(channels as i32), &to];
        // SAFETY: the kernel reads `pixels` x `channels` values and writes as many bytes as there are pixels.
        unsafe { launch(&device, "losses", "argmax", grid, &arguments)? };
    }
    Ok(classes.tensor(&[batch, height, width]))
}
