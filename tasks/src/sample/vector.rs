//! Vectors in metres (x to the right, y up, z away) and linear colours.

use std::ops::{Add, Mul, Neg, Sub};

/// A point, a direction, or a linear RGB colour.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Vec3 {
    pub x: f64,
    pub y: f64,
    pub z: f64,
}

pub(super) const fn vec3(x: f64, y: f64, z: f64) -> Vec3 {
    Vec3 { x, y, z }
}

impl Vec3 {
    pub fn dot(self, other: Self) -> f64 {
        self.x * other.x + self.y * other.y + self.z * other.z
    }

    pub fn cross(self, other: Self) -> Self {
        vec3(
            self.y * other.z - self.z * other.y,
            self.z * other.x - self.x * other.z,
            self.x * other.y - self.y * other.x,
        )
    }

    pub fn length(self) -> f64 {
        self.dot(self).sqrt()
    }

    pub fn unit(self) -> Self {
        self * (1.0 / self.length())
    }

    /// The product of each pair of components: light of one colour on a surface of another.
    pub fn tint(self, other: Self) -> Self {
        vec3(self.x * other.x, self.y * other.y, self.z * other.z)
    }

    pub fn mix(self, other: Self, share: f64) -> Self {
        self * (1.0 - share) + other * share
    }
}

impl Add for Vec3 {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        vec3(self.x + other.x, self.y + other.y, self.z + other.z)
    }
}

impl Sub for Vec3 {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        vec3(self.x - other.x, self.y - other.y, self.z - other.z)
    }
}

impl Mul<f64> for Vec3 {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        vec3(self.x * factor, self.y * factor, self.z * factor)
    }
}

impl Neg for Vec3 {
    type Output = Self;
    fn neg(self) -> Self {
        self * -1.0
    }
}

/// A rotation about the vertical as (cosine, sine).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Turn {
    pub cos: f64,
    pub sin: f64,
}

impl Turn {
    pub const NONE: Self = Self { cos: 1.0, sin: 0.0 };

    /// The rotation whose half angle has tangent `t`: -1..1 covers a quarter turn either way. The
    /// rational form keeps the scenes free of libm, whose last digits differ between platforms.
    pub fn half_tangent(t: f64) -> Self {
        let square = t * t;
        Self { cos: (1.0 - square) / (1.0 + square), sin: 2.0 * t / (1.0 + square) }
    }

    pub fn apply(self, v: Vec3) -> Vec3 {
        vec3(self.cos * v.x + self.sin * v.z, v.y, self.cos * v.z - self.sin * v.x)
    }

    pub fn undo(self, v: Vec3) -> Vec3 {
        Self { cos: self.cos, sin: -self.sin }.apply(v)
    }
}
