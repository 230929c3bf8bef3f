//! Surface colours: two-colour patterns cut out of a solid, softened to the size of a pixel.

use super::vector::{Vec3, vec3};

#[derive(Clone, Copy, Debug)]
pub(super) enum Pattern {
    Plain,
    /// Layers along x, y or z.
    Stripes {
        axis: usize,
        period: f64,
    },
    Checks {
        period: f64,
    },
    Dots {
        period: f64,
    },
    Bricks {
        length: f64,
        height: f64,
    },
    /// Long boards along z.
    Planks {
        width: f64,
        length: f64,
    },
    /// Window openings in the second colour.
    Facade {
        width: f64,
        height: f64,
    },
    /// Soft patches.
    Clouds {
        period: f64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Material {
    pub first: Vec3,
    pub second: Vec3,
    pub pattern: Pattern,
    /// Strength of the highlight, 0..1.
    pub gloss: f64,
    /// Strength of the fine grain, 0..1.
    pub grain: f64,
    /// Light the surface gives off itself, 0..1.
    pub glow: f64,
    pub seed: u32,
}

impl Material {
    pub fn plain(colour: Vec3) -> Self {
        Self {
            first: colour,
            second: colour,
            pattern: Pattern::Plain,
            gloss: 0.0,
            grain: 0.06,
            glow: 0.0,
            seed: 0,
        }
    }

    pub fn patterned(first: Vec3, second: Vec3, pattern: Pattern) -> Self {
        Self { second, pattern, ..Self::plain(first) }
    }

    pub fn glossy(self, gloss: f64) -> Self {
        Self { gloss, ..self }
    }

    pub fn grainy(self, grain: f64, seed: u32) -> Self {
        Self { grain, seed, ..self }
    }

    pub fn glowing(self, glow: f64) -> Self {
        Self { glow, ..self }
    }

    /// The colour at a point of the solid; `pixel` is the width in metres that one pixel covers,
    /// `grain` scales the material's own.
    pub fn colour(&self, p: Vec3, normal: Vec3, pixel: f64, grain: f64) -> Vec3 {
        let share = self.share(p, normal, pixel);
        let base = self.first.mix(self.second, share);
        // Grain finer than a pixel would only be aliasing.
        let visible = (0.02 / pixel).min(1.0);
        let grain = self.grain * grain;
        if grain * visible < 0.004 {
            return base;
        }
        let fine = noise(p * 25.0, self.seed) - 0.5;
        let coarse = noise(p * 3.0, self.seed ^ 0x5bd1) - 0.5;
        base * (1.0 + grain * (fine * visible + coarse))
    }

    /// How much of the second colour shows, 0..1.
    fn share(&self, p: Vec3, normal: Vec3, pixel: f64) -> f64 {
        // Away from the faces of solids, which lie on multiples of round numbers.
        let q = p + vec3(0.0137, 0.0173, 0.0119);
        // Horizontal coordinate on an upright face, and both on a level one.
        let level = normal.y.abs() > 0.7;
        let (u, v) = match (level, normal.x.abs() > normal.z.abs()) {
            (true, _) => (q.x, q.z),
            (false, true) => (q.z, q.y),
            (false, false) => (q.x, q.y),
        };
        match self.pattern {
            Pattern::Plain => 0.0,
            Pattern::Stripes { axis, period } => soft(wave([q.x, q.y, q.z][axis], period), pixel),
            Pattern::Checks { period } => {
                let sign = |x: f64, n: f64| {
                    if flat(n) { 1.0 } else { 2.0 * soft(wave(x, period), pixel) - 1.0 }
                };
                0.5 + 0.5 * sign(q.x, normal.x) * sign(q.y, normal.y) * sign(q.z, normal.z)
            }
            Pattern::Dots { period } => {
                let cell = |x: f64, n: f64| {
                    if flat(n) { 0.0 } else { (fraction(x / period) - 0.5) * period }
                };
                let off = vec3(cell(q.x, normal.x), cell(q.y, normal.y), cell(q.z, normal.z));
                soft(0.36 * period - off.length(), pixel)
            }
            Pattern::Bricks { length, height } => {
                let shift = if floor(v / height) % 2 == 0 { 0.0 } else { 0.5 };
                joint(u / length + shift, length, v / height, height, pixel)
            }
            Pattern::Planks { width, length } => {
                let board = floor(u / width);
                let shift = unit_hash(board, 0, self.seed);
                let piece = floor(v / length + shift);
                let tone = unit_hash(board, piece + 1, self.seed ^ 0x77);
                let line = joint(v / length + shift, length, u / width, width, pixel);
                (0.45 * tone).max(line)
            }
            Pattern::Facade { width, height } => {
                let (x, y) = (fraction(u / width), fraction(v / height));
                let inside_x = (0.27 - (x - 0.5).abs()) * width;
                let inside_y = (0.3 - (y - 0.5).abs()) * height;
                if level { 0.0 } else { soft(inside_x.min(inside_y), pixel) }
            }
            Pattern::Clouds { period } => {
                let n = noise(p * (1.0 / period), self.seed);
                smooth(((n - 0.3) * 2.5).clamp(0.0, 1.0))
            }
        }
    }
}

/// Whether a face is level across an axis, so that the pattern on it does not depend on how deep
/// in the solid's lattice it happens to lie.
fn flat(normal: f64) -> bool {
    normal.abs() > 0.999
}

/// 0..1 over one pixel either side of an edge at signed distance `inside`.
fn soft(inside: f64, pixel: f64) -> f64 {
    (0.5 + 0.5 * inside / pixel.max(1e-9)).clamp(0.0, 1.0)
}

/// Signed distance to the nearest edge of a square wave: positive in its second half.
fn wave(x: f64, period: f64) -> f64 {
    (0.25 - (fraction(x / period) - 0.5).abs()) * period
}

/// 1 on the joints between stones of a wall, given position in stones and size in metres.
fn joint(u: f64, width: f64, v: f64, height: f64, pixel: f64) -> f64 {
    let edge = |x: f64, size: f64| (0.5 - (fraction(x) - 0.5).abs()) * size;
    let gap = 0.04 * width.min(height);
    let line = soft(gap - edge(u, width).min(edge(v, height)), pixel);
    // Joints narrower than a pixel fade to the area that they cover.
    line * (2.0 * gap / pixel).min(1.0)
}

/// Without a call into libm, which `f64::floor` is on older instruction sets.
fn floor(x: f64) -> i64 {
    let whole = x as i64;
    if x < whole as f64 { whole - 1 } else { whole }
}

fn fraction(x: f64) -> f64 {
    x - floor(x) as f64
}

fn smooth(x: f64) -> f64 {
    x * x * (3.0 - 2.0 * x)
}

/// Value noise in 0..1 with lattice spacing 1.
fn noise(p: Vec3, seed: u32) -> f64 {
    let (x, y, z) = (floor(p.x), floor(p.y), floor(p.z));
    let within = |x: f64, whole: i64| smooth(x - whole as f64);
    let (fx, fy, fz) = (within(p.x, x), within(p.y, y), within(p.z, z));
    let pair = |at: i64, factor: u64| {
        let low = (at as u64).wrapping_mul(factor);
        [low, low.wrapping_add(factor)]
    };
    let (i, j, k) = (pair(x, FACTORS[0]), pair(y, FACTORS[1]), pair(z, FACTORS[2]));
    let lerp = |a: f64, b: f64, t: f64| a + (b - a) * t;
    let edge = |b: usize, c: usize| {
        let rest = j[b] ^ k[c] ^ u64::from(seed);
        lerp(scramble(i[0] ^ rest), scramble(i[1] ^ rest), fx)
    };
    lerp(lerp(edge(0, 0), edge(1, 0), fy), lerp(edge(0, 1), edge(1, 1), fy), fz)
}

/// Odd multipliers, one for each axis.
const FACTORS: [u64; 3] = [0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9];

/// A fixed number in 0..1 for every lattice point.
fn unit_hash(x: i64, y: i64, seed: u32) -> f64 {
    let (x, y) = (x as u64, y as u64);
    scramble(x.wrapping_mul(FACTORS[0]) ^ y.wrapping_mul(FACTORS[1]) ^ u64::from(seed))
}

fn scramble(h: u64) -> f64 {
    let h = (h ^ (h >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let h = h ^ (h >> 32);
    f64::from(h as u32) * (1.0 / 4_294_967_296.0)
}
