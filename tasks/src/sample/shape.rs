//! Solids and where a ray meets them.

use super::vector::{Turn, Vec3, vec3};

/// A ray; `direction` need not have length 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ray {
    pub origin: Vec3,
    pub direction: Vec3,
}

impl Ray {
    pub fn at(&self, t: f64) -> Vec3 {
        self.origin + self.direction * t
    }
}

/// Where a ray enters a solid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    /// In lengths of the ray's direction.
    pub t: f64,
    /// Outward, length 1.
    pub normal: Vec3,
    /// The point in the solid's own frame, for its texture.
    pub local: Vec3,
    /// The normal in the solid's own frame.
    pub local_normal: Vec3,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// Everything behind the plane through `point`.
    Plane {
        point: Vec3,
        normal: Vec3,
    },
    Sphere {
        centre: Vec3,
        radius: f64,
    },
    /// Half sizes along its own axes.
    Cuboid {
        centre: Vec3,
        half: Vec3,
        turn: Turn,
    },
    /// From `base` along the unit vector `axis`.
    Cylinder {
        base: Vec3,
        axis: Vec3,
        radius: f64,
        height: f64,
    },
    Cone {
        base: Vec3,
        axis: Vec3,
        radius: f64,
        height: f64,
    },
}

/// Hits closer than this are the surface a ray starts from.
const NEAR: f64 = 1e-6;

impl Shape {
    /// Centre and radius of a sphere around the solid; `None` for a plane.
    pub fn bounds(&self) -> Option<(Vec3, f64)> {
        match *self {
            Self::Plane { .. } => None,
            Self::Sphere { centre, radius } => Some((centre, radius)),
            Self::Cuboid { centre, half, .. } => Some((centre, half.length())),
            Self::Cylinder { base, axis, radius, height }
            | Self::Cone { base, axis, radius, height } => Some((
                base + axis * (0.5 * height),
                (radius * radius + 0.25 * height * height).sqrt(),
            )),
        }
    }

    /// The first hit nearer than `limit`.
    pub fn hit(&self, ray: &Ray, limit: f64) -> Option<Hit> {
        let hit = match *self {
            Self::Plane { point, normal } => plane(ray, point, normal),
            Self::Sphere { centre, radius } => sphere(ray, centre, radius),
            Self::Cuboid { centre, half, turn } => cuboid(ray, centre, half, turn),
            Self::Cylinder { base, axis, radius, height } => {
                round(ray, base, axis, radius, height, 0.0)
            }
            Self::Cone { base, axis, radius, height } => {
                round(ray, base, axis, radius, height, radius / height)
            }
        }?;
        (hit.t < limit).then_some(hit)
    }
}

fn plane(ray: &Ray, point: Vec3, normal: Vec3) -> Option<Hit> {
    let approach = ray.direction.dot(normal);
    if approach >= 0.0 {
        return None;
    }
    let t = (point - ray.origin).dot(normal) / approach;
    (t > NEAR).then(|| Hit { t, normal, local: ray.at(t), local_normal: normal })
}

fn sphere(ray: &Ray, centre: Vec3, radius: f64) -> Option<Hit> {
    let to = ray.origin - centre;
    let a = ray.direction.dot(ray.direction);
    let b = to.dot(ray.direction);
    let root = b * b - a * (to.dot(to) - radius * radius);
    if root < 0.0 {
        return None;
    }
    let t = (-b - root.sqrt()) / a;
    (t > NEAR).then(|| {
        let local = ray.at(t) - centre;
        let normal = local * (1.0 / radius);
        Hit { t, normal, local, local_normal: normal }
    })
}

fn cuboid(ray: &Ray, centre: Vec3, half: Vec3, turn: Turn) -> Option<Hit> {
    let o = turn.undo(ray.origin - centre);
    let d = turn.undo(ray.direction);
    let mut enter = f64::NEG_INFINITY;
    let mut leave = f64::INFINITY;
    let mut local_normal = Vec3::default();
    let faces = [
        (o.x, d.x, half.x, vec3(1.0, 0.0, 0.0)),
        (o.y, d.y, half.y, vec3(0.0, 1.0, 0.0)),
        (o.z, d.z, half.z, vec3(0.0, 0.0, 1.0)),
    ];
    for (origin, direction, half, outward) in faces {
        if direction == 0.0 {
            if origin.abs() > half {
                return None;
            }
            continue;
        }
        let side = if direction > 0.0 { -1.0 } else { 1.0 };
        let near = (side * half - origin) / direction;
        let far = (-side * half - origin) / direction;
        if near > enter {
            enter = near;
            local_normal = outward * side;
        }
        leave = leave.min(far);
    }
    (enter > NEAR && enter < leave).then(|| Hit {
        t: enter,
        normal: turn.apply(local_normal),
        local: o + d * enter,
        local_normal,
    })
}

/// A cylinder (`slope` 0) or a cone whose radius shrinks by `slope` a metre along the axis.
fn round(ray: &Ray, base: Vec3, axis: Vec3, radius: f64, height: f64, slope: f64) -> Option<Hit> {
    let to = ray.origin - base;
    let (o_along, d_along) = (to.dot(axis), ray.direction.dot(axis));
    let (o_across, d_across) = (to - axis * o_along, ray.direction - axis * d_along);
    let o_radius = radius - slope * o_along;
    let d_radius = -slope * d_along;

    let mut best: Option<(f64, Vec3)> = None;
    let mut offer = |t: f64, normal: Vec3| {
        if t > NEAR && best.is_none_or(|(known, _)| t < known) {
            best = Some((t, normal));
        }
    };

    let a = d_across.dot(d_across) - d_radius * d_radius;
    let b = o_across.dot(d_across) - o_radius * d_radius;
    let c = o_across.dot(o_across) - o_radius * o_radius;
    let root = b * b - a * c;
    if root >= 0.0 && a != 0.0 {
        let root = root.sqrt();
        for t in [(-b - root) / a, (-b + root) / a] {
            let along = o_along + t * d_along;
            if (0.0..=height).contains(&along) {
                let across = o_across + d_across * t;
                let side = across.length();
                if side > 0.0 {
                    offer(t, (across * (1.0 / side) + axis * slope).unit());
                }
            }
        }
    }
    for (along, radius, normal) in [(0.0, radius, -axis), (height, radius - slope * height, axis)] {
        if d_along != 0.0 {
            let t = (along - o_along) / d_along;
            let across = o_across + d_across * t;
            if across.dot(across) <= radius * radius {
                offer(t, normal);
            }
        }
    }
    best.map(|(t, normal)| Hit { t, normal, local: ray.at(t) - base, local_normal: normal })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AHEAD: Ray = Ray { origin: vec3(0.0, 0.5, 0.0), direction: vec3(0.0, 0.0, 1.0) };

    fn depth(shape: Shape) -> f64 {
        shape.hit(&AHEAD, f64::INFINITY).unwrap().t
    }

    #[test]
    fn a_ray_straight_ahead_meets_each_solid_at_its_known_depth() {
        let up = vec3(0.0, 1.0, 0.0);
        let wall = Shape::Plane { point: vec3(0.0, 0.0, 4.0), normal: vec3(0.0, 0.0, -1.0) };
        assert_eq!(depth(wall), 4.0);
        assert_eq!(depth(Shape::Sphere { centre: vec3(0.0, 0.5, 3.0), radius: 1.0 }), 2.0);
        let cuboid =
            |turn| Shape::Cuboid { centre: vec3(0.0, 0.5, 3.0), half: vec3(1.0, 1.0, 1.0), turn };
        assert_eq!(depth(cuboid(Turn::NONE)), 2.0);
        // An eighth turn: the edge stands sqrt(2) in front of the centre.
        let eighth = Turn::half_tangent(2.0_f64.sqrt() - 1.0);
        assert!((depth(cuboid(eighth)) - (3.0 - 2.0_f64.sqrt())).abs() < 1e-12);
        let base = vec3(0.0, 0.0, 3.0);
        assert_eq!(depth(Shape::Cylinder { base, axis: up, radius: 1.0, height: 1.0 }), 2.0);
        // Half way up the cone is half as wide.
        assert!(
            (depth(Shape::Cone { base, axis: up, radius: 1.0, height: 1.0 }) - 2.5).abs() < 1e-12
        );
    }

    #[test]
    fn every_hit_lies_inside_the_bounds_with_a_unit_normal_facing_the_ray() {
        let up = vec3(0.0, 1.0, 0.0);
        let shapes = [
            Shape::Sphere { centre: vec3(0.2, 0.4, 3.0), radius: 0.7 },
            Shape::Cuboid {
                centre: vec3(0.2, 0.4, 3.0),
                half: vec3(0.5, 0.3, 0.8),
                turn: Turn::half_tangent(0.3),
            },
            Shape::Cylinder { base: vec3(0.2, 0.0, 3.0), axis: up, radius: 0.4, height: 0.9 },
            Shape::Cone { base: vec3(0.2, 0.0, 3.0), axis: up, radius: 0.6, height: 0.9 },
        ];
        for shape in shapes {
            let (centre, radius) = shape.bounds().unwrap();
            let mut hits = 0;
            for i in -20..=20 {
                for j in -20..=20 {
                    let direction = vec3(f64::from(i) * 0.03, f64::from(j) * 0.03, 1.0);
                    let ray = Ray { origin: vec3(0.0, 0.6, 0.0), direction };
                    if let Some(hit) = shape.hit(&ray, f64::INFINITY) {
                        hits += 1;
                        assert!((ray.at(hit.t) - centre).length() <= radius + 1e-9, "{shape:?}");
                        assert!((hit.normal.length() - 1.0).abs() < 1e-9, "{shape:?}");
                        assert!(hit.normal.dot(direction) < 1e-9, "{shape:?}");
                    }
                }
            }
            assert!(hits > 50, "{shape:?}");
        }
    }
}
